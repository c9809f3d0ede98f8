"""`ngpt-lab bench bounds`."""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import ngpt_lab
from ngpt_lab.arguments import OptionParser
from ngpt_lab.bench.bounds import Bound, judge, read_bounds
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.training.run_record import source_state

PACKAGE = Path(ngpt_lab.__file__).parent


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench bounds`; the exit status is 1 unless every bound is met, by figures of this source.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    measurements, bounds = read_bounds(options.file)
    unknown = [name for name in options.only if name not in measurements]
    if unknown:
        raise InputError(f"--only {unknown[0]} is not among the measurements {', '.join(measurements)}")
    console, folder = Console(width=150), options.out or Path("runs") / f"bounds-{options.file.stem}"
    missing: dict[str, str] = {}
    for name, words in measurements.items():
        if not options.only or name in options.only:
            console.print(f"[bold]{name}[/bold]: ngpt-lab bench {words}", highlight=False)
            carry_out({"words": words, **source()}, folder / f"{name}.json", missing)
    state = source()
    rows = [judged(bound, folder / f"{bound.of}.json", missing, {"words": measurements[bound.of], **state}) for bound in bounds]
    write_atomically(folder / "bounds.json", json.dumps(rows, indent=1) + "\n")
    console.print(table(rows, f"{options.file}, figures in {folder}"))
    if any(asked(row) and row["met"] is not True for row in rows):
        raise SystemExit(1)


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench bounds",
        description="Carry out the measurements of a file, each in a process of its own, and hold them against its bounds. A "
        "bound is met by the median, or where the median is beyond it by less than the 95%% half-width, itself at most 0.02. "
        "Figures of another source (package or configs), another torch or other words are shown as older and meet nothing.",
    )
    parser.add_argument("file", type=Path, help="measurements and bounds, as experiments/speed/cpu.yaml")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="measure this one again; take others from --out"
    )
    parser.add_argument("--out", type=Path, help="folder of the figures (runs/bounds-FILE)")
    return parser


def source() -> dict[str, str]:
    """What is measured: a digest of the package's code and of the configs beside it, and torch's version."""
    digest = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.with_name("configs").rglob("*.yaml")]):
        digest.update(f"{file.relative_to(PACKAGE.parent)}\n".encode() + file.read_bytes() + b"\0")
    return {"source": digest.hexdigest(), "torch": version("torch")}


def carry_out(origin: Mapping[str, Any], path: Path, missing: dict[str, str]) -> None:
    """Measure, into a file that tells the origin and commit too; where that fails there is none, and `missing` says why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ngpt_lab", "bench", *shlex.split(origin["words"]), "--json", str(path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or not path.is_file():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        missing[path.stem] = lines[-1]
    else:
        figures = {**json.loads(path.read_text()), "origin": origin, "commit": source_state()["commit"]}
        write_atomically(path, json.dumps(figures, indent=1) + "\n")


def judged(bound: Bound, path: Path, missing: Mapping[str, str], origin: Mapping[str, Any]) -> dict[str, Any]:
    """One bound, the figure it is about, and whether it is met; an older figure, of another origin, is not judged."""
    row = {key: value for key, value in asdict(bound).items() if value is not None}
    unmet = {"met": False if asked(row) else None}
    if not path.is_file():
        return row | unmet | {"why": missing.get(path.stem, "not measured")}
    figures = json.loads(path.read_text())
    try:
        row |= {"device": figures["device"]["name"], **asdict(judge(bound, figures))}
    except InputError as problem:
        return row | unmet | {"why": str(problem)}
    before = figures.get("origin", {})
    other = [name for name in origin if before.get(name, "") != origin[name]]
    return row | {"met": None, "older": f"other {other[0]}"} if other else row


def asked(row: Mapping[str, Any]) -> bool:
    """Whether a row has a bound."""
    return "most" in row or "least" in row


def table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The bounds as a table."""
    shown = Table(title=title)
    for column in ("what", "bound", "measured", "half-width", "arms", "met"):
        shown.add_column(column)
    for row in rows:
        within = [f"{sign} {row[key]:g}" for key, sign in (("most", "<="), ("least", ">=")) if key in row]
        width = row.get("half_width")
        without = "".join(f"; without {name}: {why}" for name, why in row.get("left_out", {}).items())
        shown.add_row(
            row["says"],
            ", ".join(within) or "-",
            f"{row['value']:,.4g}" if "value" in row else row["why"],
            f"{width:.4f}" if width is not None else "-",
            " / ".join(row["arms"]) + without if "value" in row else "-",
            f"older: {row['older']}" if "older" in row else {True: "yes", False: "NO", None: "-"}[row["met"]],
        )
    return shown
