"""Arms of the debug size on a corpus of their own."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
Args = Callable[..., list[str]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    return file


@pytest.fixture
def args(corpus: Path) -> Args:
    """The arguments of `fit` for a model of the debug size, with ablations, and settings."""

    def build(model: str, *settings: str, ablations: tuple[str, ...] = ()) -> list[str]:
        parts = ["base", f"model/{model}", "size/debug", *(f"ablation/{name}" for name in ablations)]
        words = [word for part in parts for word in ("-c", f"{CONFIGS}/{part}.yaml")]
        return [*words, "--data.source=TextFiles", f"--data.source.files={corpus}", "--trainer.accelerator=cpu", *settings]

    return build
