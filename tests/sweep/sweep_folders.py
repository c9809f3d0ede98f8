"""Made sweep folders; tests are no package, so this is loaded by its path."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def planned(start: str, /, **more: Any) -> dict[str, Any]:
    """A run as sweep.json has it; its folder begins with `start`, whatever `more` calls the run."""
    run = {
        "folder": f"{start}-0123abcd",
        "name": start,
        "id": "0123abcd",
        "stage": "final",
        "base": "ngpt-1m",
        "ablation": "",
        "arm": "ngpt-1m",
        "condition": {},
        "point": {},
        "trial": {},
        "budget": 4000,
        "seed": 1,
        "steps": 40,
        "parameters": 856_000,
        "flops": 10**12,
    }
    return {**run, **more}


def write_sweep(folder: Path, runs: Sequence[Mapping[str, Any]], tune: Mapping[str, Any] | None = None) -> None:
    """sweep.json."""
    content = {"name": "made", "baseline": "ngpt-1m", "metric": "test/loss", "tune": tune, "runs": list(runs)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(content))


def write_run(
    folder: Path,
    run: Mapping[str, Any],
    status: str = "finished",
    error: str | None = None,
    losses: Mapping[int, float] | None = None,
    last: Mapping[str, float] | None = None,
    final: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """The folder of a run of 100 tokens a step; `last` goes into its last row, `more` into run.json."""
    place = folder / "runs" / run["folder"]
    place.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "tokens": step * 100, "time": step / 10, "train/loss": loss}
        for step, loss in (losses or {10: 3.0, 20: 2.5, 40: 2.0}).items()
    ]
    rows[-1] |= last or {}
    rows.append({"step": rows[-1]["step"], "tokens": rows[-1]["tokens"], "time": rows[-1]["time"], "val/loss": 1.0})
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {
        "status": status,
        "error": error,
        "seed": run["seed"],
        "commit": "0123abc",
        "diff": "",
        "versions": {"torch": "2.13.0"},
        "device": {"kind": "cpu", "threads": 1},
        "data": {"source": "words", "fingerprint": "feed5eed"},
        "model": {"class": "NGPT", "parameters": run["parameters"], "flops_per_token": 5_000_000},
        "steps": run["steps"],
        "tokens_per_step": 100,
        "tokens": 100 * rows[-1]["step"],
        "wall_time_s": 4.0,
        "settings": {"seed_everything": run["seed"], **(settings or {})},
        "final": {"val/loss": 1.0} if final is None else final,
    }
    (place / "run.json").write_text(json.dumps(record | more))
    return place


def claim(folder: Path, run: Mapping[str, Any], turn: int, age: float) -> None:
    """A claim last renewed `age` seconds ago."""
    file = folder / "claims" / f"{run['folder']}.{turn:04d}"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    moment = max(0.0, time.time() - age)
    os.utime(file, (moment, moment))
