"""How far training turned the matrices, as a real run logged it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ngpt_lab.analysis.rotation import angle_turned
from ngpt_lab.analysis.runs import Run, load_run

CONFIGS = Path(__file__).parents[2] / "configs"
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def run(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on the sphere."""
    return load_run(train(tmp_path_factory.mktemp("runs") / "ngpt", CONFIGS / "model" / "ngpt.yaml"))


def test_the_angles_are_the_logged_ones_and_their_sum(run: Run):
    turned = angle_turned(run)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row["sphere/angle/blocks.1.mlp.down"] for row in rows if "sphere/angle/blocks.1.mlp.down" in row]
    own = turned[turned["matrix"] == "blocks.1.mlp.down"]
    assert own["angle"].to_list() == logged
    assert own["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert own["tokens"].to_list() == [512 * step for step in own["step"]]
    assert own["total"].to_list() == pytest.approx([sum(logged[: n + 1]) for n in range(6)])
    assert set(zip(own["kind"], own["layer"], strict=True)) == {("mlp_down", 1)}
    assert set(turned["kind"]) > {"input_embedding", "output_embedding", "query", "attention_output"}


def test_a_row_that_diverged_is_left_out_and_a_run_off_the_sphere_has_none(run: Run):
    metrics = pd.DataFrame(
        {"step": [1, 2, 3], "tokens": [10, 20, 30], "sphere/angle/embedding": [1.0, None, 2.5], "train/loss": [3.0, 2.0, 1.0]}
    )
    turned = angle_turned(replace(run, metrics=metrics))
    assert turned[["layer", "step", "angle", "total"]].to_numpy().tolist() == [[-1, 1, 1.0, 1.0], [-1, 3, 2.5, 3.5]]
    assert angle_turned(replace(run, metrics=metrics[["step", "tokens", "train/loss"]])).empty
    assert list(angle_turned(replace(run, metrics=pd.DataFrame())).columns) == list(turned.columns)
