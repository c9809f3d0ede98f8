"""The scripts beside specifications whose question the report does not answer by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(experiment: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"read_{experiment}", EXPERIMENTS / experiment / "read.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_storage_costs_are_paired_by_seed_and_leave_trials_and_failures_out() -> None:
    losses = {"ngpt": {"bf16-mixed": 2.0, "bf16-true": 2.01}, "nemotron": {"bf16-mixed": 2.1, "bf16-true": 2.3}}
    names = ("arm", "condition", "stage", "status", "seed", "test/bits_per_byte")
    rows = [
        (arm, f"precision={precision}", stage, status, seed, loss)
        for arm, by_precision in losses.items()
        for precision, at in by_precision.items()
        for stage, status, seed, loss in (
            ("final", "finished", 1, at),
            ("final", "finished", 2, at + 0.5),
            ("final", "failed", 3, 9.0),
            ("tune", "finished", 101, 9.0),
        )
    ]
    cost = script("storage").costs(pd.DataFrame(rows, columns=list(names)))
    assert cost.index.tolist() == [1, 2]
    assert cost["ngpt"].tolist() == pytest.approx([0.01, 0.01])
    assert cost["nemotron"].tolist() == pytest.approx([0.2, 0.2])


def test_plasticity_is_told_with_its_interval_and_with_the_seeds_that_have_none() -> None:
    frame = pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "forgetting": shift + 0.1 * seed, "tokens_to_relearn": tokens}
            for arm, shift in (("ngpt", 0.2), ("nemotron", 0.5))
            for seed, tokens in ((1, 100.0), (2, 200.0), (3, None))
        ]
    )
    read = script("plasticity")
    (forgetting,) = read.compared(frame, "forgetting")
    assert forgetting.startswith("forgetting: ngpt - nemotron = -0.3 +- ")
    assert "3 seeds" in forgetting
    (relearning,) = read.compared(frame, "tokens_to_relearn")
    assert "2 seeds" in relearning
    assert "1 seed(s) without a value left out" in relearning
