"""A whole comparison folder with a planted truth."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

# One description of a run folder serves both test packages; tests are no package, so it is loaded by its path.
_spec = importlib.util.spec_from_file_location("run_folders", Path(__file__).parents[1] / "analysis" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_run_folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_run_folders)
write_run = _run_folders.write_run

BUDGETS = (204_800, 409_600, 819_200)
SPEED_UP = 1.5


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
