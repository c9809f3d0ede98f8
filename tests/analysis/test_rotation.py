"""How far training turned the matrices, as a real run logged it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ngpt_lab.analysis.rotation import angle_turned
from ngpt_lab.analysis.runs import Run, load_run
from ngpt_lab.training.cli import CLI

CONFIGS = Path(__file__).parents[2] / "configs"


def train(folder: Path, *configs: Path) -> Path:
    """Six steps of the debug size."""
    text = folder.parent / "words.txt"
    text.write_text("the norm of a vector on the sphere is one\n" * 3000)
    files = [CONFIGS / "base.yaml", configs[0], CONFIGS / "size" / "debug.yaml", *configs[1:]]
    words = [word for file in files for word in ("-c", str(file))]
    words += [f"--data.files={text}", f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.accelerator=cpu", "--trainer.max_steps=6", "--telemetry.scales_every_n_steps=3"]
    CLI(["fit", *words, "--data.eval_windows=16", "--checkpoint.every_n_train_steps=3"])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
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
