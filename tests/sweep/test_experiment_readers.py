"""The scripts beside specifications whose question the report does not answer by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from neighbours import module_at

from ngpt_lab.analysis.columns import COLUMNS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(experiment: str) -> ModuleType:
    return module_at(EXPERIMENTS / experiment / "read.py")


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


def command(experiment: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(EXPERIMENTS / experiment / "read.py"), str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def write_switching(folder: Path, arm: str, seed: int, **changes: Any) -> None:
    """A run of three phases of 100 tokens, whose first loss rises by `seed` in the second."""
    place = folder / "runs" / f"{arm}-s{seed}"
    place.mkdir(parents=True)
    record = {
        **{"status": "finished", "seed": seed, "arm": arm, "budget": 300, "tokens": 300, "steps": 30, "tokens_per_step": 10},
        **{"versions": {}, "device": {}, "data": {}, "model": {"class": "NGPT", "parameters": 1}, "sweep": {"stage": "final"}},
        **{"settings": {"data.init_args.switch_every": 10}, "final": {"val/loss": 1.0}},
    }
    (place / "run.json").write_text(json.dumps(record | changes))
    losses = {100: 1.0, 200: 1.0 + seed, 300: 1.0}
    rows = [{"step": t // 10, "tokens": t, "val/loss": loss, "val_other/loss": 2.0} for t, loss in losses.items()]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_runs_that_cannot_be_read_for_plasticity_are_left_out_and_named(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_switching(tmp_path, "ngpt", seed)
        write_switching(tmp_path, "nemotron", seed, **({"status": "failed", "error": "killed"} if seed == 3 else {}))
    write_switching(tmp_path, "ngpt", 4)
    (tmp_path / "runs" / "ngpt-s4" / "run.json").write_text('{"status": "fin')
    write_switching(tmp_path, "ngpt", 5)
    (tmp_path / "runs" / "ngpt-s5" / "metrics.jsonl").write_text('{"step": 10, "tok')
    write_switching(tmp_path, "ngpt", 101, status="failed", sweep={"stage": "tune"})
    done = command("plasticity", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "forgetting: ngpt - nemotron = +0 +- 0 (95%, 2 seeds" in done.stdout
    left_out = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert [name for line in left_out for name in ("nemotron-s3", "ngpt-s4", "ngpt-s5") if name in line] == [
        *("nemotron-s3", "ngpt-s4", "ngpt-s5")
    ]
    assert len(left_out) == 3
    assert "killed" in left_out[0]


def write_stored(folder: Path, made: list[tuple[str, str, int, str]]) -> None:
    rows = [
        dict.fromkeys(COLUMNS, "")
        | {"stage": "final", "name": f"{arm}-s{seed}", "arm": arm, "condition": f"precision={precision}", "budget": 1}
        | {"seed": seed, "status": status, "test/bits_per_byte": 2.0 + (precision == "bf16-true") * 0.01 * seed}
        for arm, precision, seed, status in made
    ]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)


def test_an_arm_without_a_pair_is_told_beside_the_others(tmp_path: Path) -> None:
    both = [("ngpt", precision, seed, "finished") for precision in ("bf16-mixed", "bf16-true") for seed in (1, 2)]
    write_stored(tmp_path, [*both, ("nemotron", "bf16-mixed", 1, "finished"), ("nemotron", "bf16-true", 1, "failed")])
    done = command("storage", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "nemotron: no seed finished what is compared" in lines
    assert any(line.startswith("ngpt: +0.0150 +- ") for line in lines)
    assert "nemotron less ngpt: no seed finished what is compared" in lines
    assert "left out: nemotron-s1 is failed" in lines


@pytest.mark.parametrize("experiment", ["plasticity", "storage"])
def test_a_folder_of_something_else_is_refused_in_one_sentence(experiment: str, tmp_path: Path) -> None:
    done = command(experiment, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path) in done.stderr
