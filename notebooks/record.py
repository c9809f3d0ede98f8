"""A slim copy of a sweep or comparison that the notebooks can open: `python notebooks/record.py SOURCE TARGET`.

It keeps what the tables and figures read. Left out are trials (tuning.csv has their losses), checkpoints, uncommitted changes,
TensorBoard files, most rows of the telemetry, and folders of the machine that trained.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.runs import Run, at_full_budget, load_run, read_json, sweep_labels
from ngpt_lab.errors import InputError

BESIDE = ("sweep.json", "sweep.yaml", "compare.json", "results.csv", "tuning.csv", "step_cost.json")
PLANS = ("sweep.json", "compare.json")
TELEMETRY = ("eigen/", "scale/", "sphere/")
ANGLE = "sphere/angle/"
ROWS = 12
"""Rows of the telemetry that a run keeps, evenly spread, the last among them."""
DIGITS = 6
# A path from the root down: "/" after nothing that could be a name, a fraction or an address.
_ABSOLUTE = re.compile(r"(?<![\w.~)/-])/[\w.+@%~-]+(?:/[\w.+@%~-]*)*")


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the folder of a sweep or comparison")
    parser.add_argument("target", type=Path, help="the copy, which must not exist")
    parser.add_argument("--no-weights", action="store_true", help="copy the weights of no run")
    options = parser.parse_args(arguments)
    try:
        record(options.source, options.target, weights=not options.no_weights)
    except InputError as error:
        sys.exit(str(error))


def record(source: Path, target: Path, weights: bool = True) -> None:
    """Copy the folder of a sweep or comparison to `target`, all of it or nothing.

    Raises:
        InputError: `source` is neither, `target` is there already, or a path of this machine would be copied.
    """
    plan = next((source / name for name in PLANS if (source / name).is_file()), None)
    if plan is None:
        raise InputError(f"{source} has neither {' nor '.join(PLANS)}: give the folder of a sweep or comparison.")
    if target.exists():
        raise InputError(f"{target} exists: remove it, or give another folder.")
    runs = [load_run(folder) for folder in _finals(source, read_json(plan))]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        copy = Path(made) / target.name
        copy.mkdir()
        for name in BESIDE:
            if (source / name).is_file():
                _copy_text(source / name, copy / name)
        for run in runs:
            _copy_run(run, copy / "runs" / run.folder.name)
        _copy_inside(runs, copy / "runs", weights)
        _refuse_paths(copy)
        copy.rename(target)


def _finals(source: Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    """The folders of the runs that began and are no trials, in the order of the plan where it has one."""
    planned = [entry["folder"] for entry in plan.get("runs", ()) if entry["stage"] == "final"]
    names = planned or sorted(folder.name for folder in (source / "runs").iterdir())
    return (source / "runs" / name for name in names if (source / "runs" / name / "run.json").is_file())


def _copy_run(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True)
    _copy_text(run.folder / "config.yaml", folder / "config.yaml")
    record = {key: value for key, value in run.record.items() if key != "diff"}
    _write_json(folder / "run.json", record)
    if run.problem is None:
        rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({key: _rounded(value) for key, value in row.items()}) for row in thinned(rows)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def thinned(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every row, but telemetry in `ROWS` of them alone.

    Angles are turned since the row before: those of the rows left out are added to the next one that stays, so that the angle
    turned in all is what it was.
    """
    telling = [number for number, row in enumerate(rows) if any(key.startswith(TELEMETRY) for key in row)]
    step = (len(telling) - 1) / (ROWS - 1)
    kept = set(telling) if step <= 1 else {telling[round(place * step)] for place in range(ROWS)}
    turned: Counter[str] = Counter()
    for number, row in enumerate(rows):
        turned.update({key: value or 0.0 for key, value in row.items() if key.startswith(ANGLE)})
        if number in kept:
            yield {**row, **turned}
            turned.clear()
        else:
            yield {key: value for key, value in row.items() if not key.startswith(TELEMETRY)}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _copy_inside(runs: Sequence[Run], folder: Path, weights: bool) -> None:
    """Scales of two nGPT arms' full-budget runs, and the weights of the first seed of the plain arms."""
    plain = [run for run in runs if not sweep_labels(run.record).get("ablation")]
    on_sphere = [run for run in runs if run.model.get("parametrisation") is not None]
    ablations = [run for run in on_sphere if run not in plain]
    # One number for a whole layer is what the channels' own numbers are compared with.
    single = [run for run in ablations if _granularity(run) == "scalar"] or ablations
    arms = {run.arm for run in on_sphere if run in plain} | {run.arm for run in single[:1]}
    for run in at_full_budget(on_sphere):
        if run.arm in arms and (run.folder / "scales").is_dir():
            shutil.copytree(run.folder / "scales", folder / run.folder.name / "scales")
    for run in at_full_budget(plain) if weights else ():
        if run.seed == min(other.seed for other in plain):
            _copy_weights(run.folder, folder / run.folder.name)


def _granularity(run: Run) -> str:
    key = "model.init_args.backbone.init_args.attention_residual.init_args.granularity"
    return str(run.settings.get(key))


def _copy_weights(source: Path, target: Path) -> None:
    from ngpt_lab.interop.trained import load_trained, write_weights  # slow to import

    write_weights(load_trained(source).decoder, target)


def _copy_text(source: Path, target: Path) -> None:
    if source.suffix == ".json":
        _write_json(target, json.loads(source.read_text(encoding="utf-8")))
    else:
        target.write_text(portable(source.read_text(encoding="utf-8")), encoding="utf-8")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(_portable_json(content), indent=1) + "\n", encoding="utf-8")


def _portable_json(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _portable_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_portable_json(value) for value in content]
    return portable(content) if isinstance(content, str) else content


def portable(text: str) -> str:
    """The text with every absolute path made relative to the folder that this runs in, or cut to its last name."""
    return _ABSOLUTE.sub(lambda path: _relative(Path(path[0])), text)


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _refuse_paths(folder: Path) -> None:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for place in {Path.cwd(), Path.home()}:
            if f"{place}/".encode() in content:
                raise InputError(f"{file.relative_to(folder)} would hold the path {place}: this script must learn to drop it.")


if __name__ == "__main__":
    main()
