"""A tiny corpus, and runs over it through the real command line."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
Fit = Callable[..., Path]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of made-up words: something to learn, in no time."""
    words = ["alpha", "stream", "sphere", "norm", "query", "value", "token", "logit"]
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(words, k=9)) for _ in range(3000)))
    return file


@pytest.fixture
def fit(tmp_path: Path, corpus: Path) -> Fit:
    """Trains the debug size and returns the run's folder."""
    from ngpt_lab.training.cli import CLI

    def run(model: str, *more: str, name: str = "run") -> Path:
        folder = tmp_path / name
        files = [CONFIGS / "base.yaml", CONFIGS / "model" / f"{model}.yaml", CONFIGS / "size" / "debug.yaml"]
        words = [word for file in files for word in ("-c", str(file))]
        words += [f"--data.files={corpus}", f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
        words += ["--trainer.max_steps=12", "--trainer.accelerator=cpu"]
        CLI(["fit", *words, *more])
        return folder

    return run


def rows(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    """The exact training loss of every step."""
    return [row["train/loss"] for row in rows(folder) if "train/loss" in row]


@pytest.fixture
def read() -> dict[str, Callable[[Path], Any]]:
    """Readers of a run's folder."""
    return {"rows": rows, "losses": losses}
