"""Whole comparison and sweep folders with a planted truth."""

from __future__ import annotations

import importlib.util
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.sweep.results import write_results

# One description of a run folder serves both test packages; tests are no package, so it is loaded by its path.
_spec = importlib.util.spec_from_file_location("run_folders", Path(__file__).parents[1] / "analysis" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_run_folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_run_folders)
write_run = _run_folders.write_run

BUDGETS = (204_800, 409_600, 819_200)
SPEED_UP = 1.5
LR = "model.init_args.optimizer.init_args.lr"


def planted_loss(arm: str, tokens: int, seed: int) -> float:
    """nGPT needs two thirds of the baseline's tokens; seeds scatter around that."""
    effective = tokens * (SPEED_UP if arm == "ngpt" else 1)
    scatter = 0.01 * math.sin(3 * seed + (arm == "ngpt"))
    return 2.4 - 0.25 * math.log(effective / BUDGETS[0]) + scatter


@pytest.fixture(scope="session")
def write_comparison(write_run: Callable[..., Path]) -> Callable[..., Path]:
    """Write a comparison folder: runs, compare.json, step_cost.json."""

    def write(
        folder: Path,
        arms: Sequence[str] = ("ngpt", "nemotron"),
        seeds: Sequence[int] = (1, 2, 3),
        loss: Callable[[str, int, int], float] = planted_loss,
        **specification: Any,
    ) -> Path:
        for arm in arms:
            for budget in BUDGETS:
                for seed in seeds:
                    write_run(folder / "runs" / f"{arm}-{budget}-s{seed}", arm, budget, seed, loss(arm, budget, seed))
        asked = {"arms": {arm: {"configs": []} for arm in arms}, "baseline": "nemotron", "seeds": list(seeds)}
        asked |= {"budgets": list(BUDGETS), "command": "ngpt-lab compare --seeds 3"} | specification
        (folder / "compare.json").write_text(json.dumps(asked))
        (folder / "step_cost.json").write_text(json.dumps(_step_cost(arms)))
        return folder

    return write


def _step_cost(arms: Sequence[str]) -> dict[str, Any]:
    own = {"nemotron": 0.050, "ngpt": 0.0625}
    seconds = {arm: [own.get(arm, 0.055) * (1 + 0.01 * (k % 3)) for k in range(9)] for arm in arms}
    return {
        "unit": "process CPU seconds per step",
        "threads": 1,
        "rounds": 9,
        "arms": {arm: {"seconds": values, "median": sorted(values)[4]} for arm, values in seconds.items()},
        "device": {"name": "a CPU"},
    }


@pytest.fixture(scope="session")
def write_sweep(write_run: Callable[..., Path]) -> Callable[..., Path]:
    """Write a sweep folder: sweep.json, sweep.yaml, runs, results.csv and tuning.csv.

    `effects` is arm -> what it adds to the loss, `tried` learning rate -> what it adds to the loss of a trial; the runs are
    trained with 0.004 (nGPT) and 0.005.
    """

    def write(
        folder: Path,
        effects: Mapping[str, float],
        conditions: Sequence[Mapping[str, Any]] = ({},),
        seeds: Sequence[int] = (1, 2, 3),
        budgets: Sequence[int] = (409_600, 819_200),
        tried: Mapping[float, float] | None = None,
        baseline: str = "nemotron",
    ) -> Path:
        rates = tried or {}
        entries = []
        for condition, arm, budget in product(conditions, effects, budgets):
            entries += [_entry("tune", arm, budget, 101, condition, {LR: rate}) for rate in rates]
            entries += [_entry("final", arm, budget, seed, condition, {}) for seed in seeds]
        for entry in entries:
            _write_sweep_run(write_run, folder, entry, effects[entry["arm"]] + rates.get(entry["trial"].get(LR), 0.0))
        plan = {"name": "which", "question": "Which part matters?", "spec": "sweep.yaml", "command": "ngpt-lab sweep which"}
        plan |= {"baseline": baseline, "metric": "test/bits_per_byte", "step_cost": 0, "runs": entries}
        plan["tune"] = {"keys": [LR], "by": "arm"} if tried else None
        (folder / "sweep.json").write_text(json.dumps(plan))
        (folder / "sweep.yaml").write_text("question: Which part matters?\n")
        write_results(folder)
        return folder

    return write


def _entry(
    stage: str, arm: str, budget: int, seed: int, condition: Mapping[str, Any], trial: Mapping[str, Any]
) -> dict[str, Any]:
    words = [arm, *condition.values(), budget, *trial.values(), f"s{seed}"]
    name = "-".join(["tune"] * (stage == "tune") + [str(word) for word in words])
    folder = "".join(c if c.isalnum() or c in "-._" else "_" for c in name) + f"-{zlib.crc32(name.encode()):08x}"
    base = arm.partition("-")[0]
    labels = {
        "steps": budget // 2048,
        "base": base,
        "ablation": arm[len(base) + 1 :],
        "condition": condition,
        "point": {},
        "trial": trial,
    }
    return {"folder": folder, "name": name, "stage": stage, "arm": arm, "budget": budget, "seed": seed, **labels}


def _write_sweep_run(write_run: Callable[..., Path], folder: Path, entry: Mapping[str, Any], effect: float) -> None:
    arm, budget, seed = entry["arm"], entry["budget"], entry["seed"]
    run = folder / "runs" / entry["folder"]
    kind = "nemotron" if entry["base"] == "nemotron" else "ngpt"
    scatter = 0.004 * math.sin(zlib.crc32(f"{arm} {seed} {budget}".encode()))
    loss = 2.4 - 0.25 * math.log(budget / BUDGETS[0]) + 0.02 * math.sin(5 * seed) + effect + scatter
    write_run(run, kind, budget, seed, loss)
    record = json.loads((run / "run.json").read_text())
    labels = {key: entry[key] for key in ("name", "stage", "base", "ablation", "condition", "point", "trial")}
    record |= {"arm": arm, "budget": budget, "sweep": labels | {"sweep": "which"}}
    record["settings"] |= {**entry["condition"], **entry["trial"]}
    record["data"] |= {key.rpartition(".")[2]: value for key, value in entry["condition"].items()}
    (run / "run.json").write_text(json.dumps(record))
