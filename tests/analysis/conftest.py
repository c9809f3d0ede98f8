"""Run folders made up from known truths."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ngpt_lab.analysis.columns import METRICS, SCALES

ROW_COUNT = 20
LAYERS = 3


def _settings(arm: str, budget: int, seed: int, folder: Path) -> dict[str, Any]:
    return {
        "seed_everything": seed,
        "trainer.max_steps": budget // 2048,
        "trainer.default_root_dir": str(folder),
        "output": f"{folder}/checkpoints",
        "model.init_args.backbone.class_path": "ngpt_lab.models.NGPT" if arm == "ngpt" else "ngpt_lab.models.Nemotron",
        "model.init_args.optimizer.init_args.lr": 0.004 if arm == "ngpt" else 0.005,
        "model.init_args.optimizer.init_args.weight_decay": 0.0 if arm == "ngpt" else 0.1,
        "data.init_args.seed": 1234,
    }


def _record(arm: str, budget: int, seed: int, loss: float, folder: Path) -> dict[str, Any]:
    bits = loss / math.log(2)
    return {
        "status": "finished",
        "error": None,
        "seed": seed,
        "commit": "0123abc",
        "diff": "",
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "device": {"kind": "cpu", "name": "a CPU", "threads": 1, "precision": "bf16-mixed"},
        "data": {"corpus": "standard library", "fingerprint": "feed5eed", "shared_share": 0.006},
        "model": {
            "class": "ngpt_lab.models.NGPT" if arm == "ngpt" else "ngpt_lab.models.Nemotron",
            "parameters": 856_000 if arm == "ngpt" else 854_000,
            "parametrisation": "ngpt-short" if arm == "ngpt" else None,
            "flops_per_token": 5_000_000,
            "compile": False,
        },
        "steps": budget // 2048,
        "tokens_per_step": 2048,
        "tokens": budget,
        "wall_time_s": 10.0,
        "settings": _settings(arm, budget, seed, folder),
        "final": {
            "val/loss": loss,
            "val/bits_per_byte": bits,
            "test/loss": loss + 0.01,
            "test/bits_per_byte": bits + 0.01 / math.log(2),
        },
    }


def _rows(arm: str, budget: int, seed: int, loss: float) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for index in range(1, ROW_COUNT + 1):
        share = index / ROW_COUNT
        row = {"step": round(share * budget / 2048), "tokens": round(share * budget), "time": 10 * share}
        wobble = 0.05 * math.sin(7 * index + seed)
        train = {"train/loss": loss + 2.5 * math.exp(-5 * share) + wobble, "train/clipped_share": 0.9 - 0.1 * share}
        if arm == "ngpt":
            train |= _telemetry(share, seed)
        else:
            train["train/clipped_share"] = 0.15
        rows.append(row | train)
        if index % 5 == 0:
            rows.append(row | {"val/loss": loss + 2.5 * math.exp(-5 * share) - 2.5 * math.exp(-5)})
    return rows


def _telemetry(share: float, seed: int) -> dict[str, float]:
    values = {"scale/s_z/mean_abs": 11 + 13 * share, "sphere/weight_error": 1e-7 * (1 + share)}
    for layer in range(LAYERS):
        values[f"eigen/attention_alpha/{layer:02d}/mean_abs"] = 0.25 + 0.05 * share * layer + 0.01 * seed
        values[f"eigen/mlp_alpha/{layer:02d}/mean_abs"] = 0.25 + 0.1 * share - 0.02 * layer
        values[f"scale/s_qk/{layer:02d}/mean_abs"] = 1 + 0.2 * share * layer
        values[f"scale/s_u/{layer:02d}/mean_abs"] = 1 + 0.1 * share
    return values


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """Write one run folder as training would; keyword `changes` replaces keys of run.json."""

    def write(folder: Path, arm: str = "ngpt", budget: int = 819_200, seed: int = 0, loss: float = 1.5, **changes: Any) -> Path:
        folder.mkdir(parents=True)
        record = _record(arm, budget, seed, loss, folder) | changes
        (folder / "run.json").write_text(json.dumps(record))
        lines = [json.dumps(row) for row in _rows(arm, budget, seed, loss)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def made_rows() -> Callable[..., pd.DataFrame]:
    """Rows of results.csv from arm -> losses by seed (1, 2, ...), finished at one budget; keywords replace columns."""

    def make(losses: Mapping[str, Sequence[float]], budget: int = 409_600, **changes: Any) -> pd.DataFrame:
        found = [
            {
                **{"stage": "final", "name": f"{arm}-{budget}-s{seed}", "id": "0f", "base": arm, "ablation": "", "arm": arm},
                **{"condition": "", "budget": budget, "seed": seed, "status": "finished", "error": "", "tokens": budget},
                **{"steps": budget // 2048, "parameters": 856_000, "flops_per_token": 5_000_000, "wall_time_s": 10.5},
                **dict.fromkeys(METRICS, loss),
                **{"clipped_share": 0.5, **dict.fromkeys(SCALES)},
            }
            | changes
            for arm, of_seeds in losses.items()
            for seed, loss in enumerate(of_seeds, start=1)
        ]
        return pd.DataFrame(found).astype(dict.fromkeys(SCALES, float))

    return make


@pytest.fixture(scope="session")
def train() -> Callable[..., Path]:
    """Six steps of the debug size, into a folder, with more config files."""
    from ngpt_lab.training.cli import CLI

    configs = Path(__file__).parents[2] / "configs"

    def train(folder: Path, model: Path, *more: Path) -> Path:
        text = folder.parent / "words.txt"
        text.write_text("the norm of a vector on the sphere is one\n" * 3000)
        files = [configs / "base.yaml", model, configs / "size" / "debug.yaml", *more]
        words = [word for file in files for word in ("-c", str(file))]
        words += ["--data.source=TextFiles", f"--data.source.files={text}"]
        words += [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
        words += ["--trainer.accelerator=cpu", "--trainer.max_steps=6", "--telemetry.scales_every_n_steps=3"]
        CLI(["fit", *words, "--data.eval_windows=16", "--checkpoint.every_n_train_steps=3", "--checkpoint.keep=null"])
        return folder

    return train
