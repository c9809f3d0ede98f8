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
def fit(tmp_path: Path, command: Callable[..., list[str]]) -> Fit:
    """Trains the debug size and returns the run's folder."""
    from ngpt_lab.training.cli import CLI

    def run(model: str, *more: str, name: str = "run") -> Path:
        folder = tmp_path / name
        CLI(command(folder, model, *more))
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
    return {"rows": rows, "losses": losses, "timeless": timeless, "steps": steps}


@pytest.fixture
def cut_back() -> Callable[[Path, int], None]:
    """See `cut`."""
    return cut


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """See `refusal`."""
    return lambda arguments: refusal(capsys, arguments)


@pytest.fixture(scope="session")
def command(corpus: Path) -> Callable[..., list[str]]:
    """The arguments of a `fit` of the debug size in a folder."""

    def words(folder: Path, model: str = "ngpt", *more: str) -> list[str]:
        files = [CONFIGS / "base.yaml", CONFIGS / "model" / f"{model}.yaml", CONFIGS / "size" / "debug.yaml"]
        chosen = [word for file in files for word in ("-c", str(file))]
        chosen += ["--data.source=TextFiles", f"--data.source.files={corpus}"]
        chosen += [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
        return ["fit", *chosen, "--trainer.max_steps=12", "--trainer.accelerator=cpu", *more]

    return words


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Adds a callback to every run that is made from now on, before those of the run itself."""
    from ngpt_lab.training.cli import CLI

    def add(callback: Any) -> None:
        make = CLI.instantiate_trainer

        def watched(self: CLI, **kwargs: Any) -> Any:
            trainer = make(self, **kwargs)
            trainer.callbacks.insert(0, callback)
            return trainer

        monkeypatch.setattr(CLI, "instantiate_trainer", watched)

    return add


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Multiplies the loss of some micro-batches, counted from the start of the run, from now on."""
    from ngpt_lab.training.module import BackboneModule

    def add(factors: dict[int, float]) -> None:
        keep = BackboneModule.keep_loss

        def spoiled(self: BackboneModule, loss: Any) -> Any:
            return keep(self, loss * factors.get(self.trainer.fit_loop.epoch_loop.total_batch_idx, 1.0))

        monkeypatch.setattr(BackboneModule, "keep_loss", spoiled)

    return add


TIMES = ("time", "train/tokens_per_second")


def timeless(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics, less what the clock decides."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows(folder)]


def steps(folder: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*.ckpt"))


def cut(folder: Path, step: int) -> None:
    """Take away the checkpoints after a step, as if the run had been killed before the next."""
    for path in (folder / "checkpoints").glob("step-*.ckpt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "running"}))


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one sentence a command is refused with."""
    from ngpt_lab.cli import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("ngpt-lab: ")
    assert not any("Traceback" in line for line in told)
    return told[-1]
