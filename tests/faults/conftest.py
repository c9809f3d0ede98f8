"""Runs in processes of their own, which tell where they are so that they can be killed there."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent


def of_training() -> ModuleType:
    """The fixtures of the training tests, which make their corpus and their commands."""
    spec = importlib.util.spec_from_file_location("conftest_of_training", HERE.parent / "training" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TRAINING = of_training()
corpus, command = TRAINING.corpus, TRAINING.command

# Accumulated steps, dropout, validations within and at the end of a step, a checkpoint of every second step.
SETTINGS = (
    "--trainer.accumulate_grad_batches=3",
    "--trainer.val_check_interval=7",
    "--model.backbone.attention_dropout=0.3",
    "--checkpoint.every_n_train_steps=2",
    "--data.eval_windows=32",
)
STEPS = 12
PATIENCE = 180


@dataclass
class Killable:
    """The processes of one run; `phase` and `at` say where it tells that it is, as in phases.py."""

    arguments: list[str]
    phase: str = "never"
    at: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Killable":
        places = ("--trainer.default_root_dir=", "--data.store=")
        folder = next(word.split("=", 1)[1] for word in self.arguments if word.startswith(places))
        self.marker = Path(f"{folder}.is-there")
        self.marker.unlink(missing_ok=True)
        told = {"PHASE": self.phase, "PHASE_AT": str(self.at), "PHASE_MARKER": str(self.marker)}
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, *self.words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **told, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    @property
    def words(self) -> list[str]:
        """What the interpreter is called with."""
        if self.arguments[0] == "tokenize":  # not a file, which each process that it starts would read again
            return ["-c", "import phases; phases.tokenize()", *self.arguments]
        return ["-m", "ngpt_lab", *self.arguments, "--trainer.callbacks=phases.Tells"]

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self.process.communicate()

    def send(self, number: int, everyone: bool = True) -> None:
        """A signal to all its processes, or to the one that was started."""
        if everyone:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return
        else:
            self.process.send_signal(number)

    def arrives(self) -> None:
        """Wait until it is there."""
        deadline = time.monotonic() + PATIENCE
        while not self.marker.exists():
            assert self.process.poll() is None, self.process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def ends(self) -> tuple[int, str]:
        """Wait for its end: exit code, and what it said."""
        _, told = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, told.decode()


def carried_out(arguments: list[str], environment: dict[str, str] | None = None) -> None:
    """Let a run come to its end."""
    with Killable(arguments, environment=environment or {}) as run:
        code, told = run.ends()
    assert code == 0, told


def killed(
    arguments: list[str],
    phase: str,
    at: int,
    later: float,
    environment: dict[str, str] | None = None,
    everyone: bool = True,
) -> None:
    """Kill a run `later` seconds after it came to a phase for the time numbered `at`.

    With all its processes, or it alone: those that it started then end by themselves.
    """
    with Killable(arguments, phase, at, environment or {}) as run:
        run.arrives()
        time.sleep(later)
        run.send(signal.SIGKILL, everyone)
        run.process.wait(PATIENCE)
        alone(run.process.pid)
        code, told = run.ends()
    assert code == -signal.SIGKILL, f"it was over before it was killed: {told}"


def alone(group: int) -> None:
    """Wait until no process of a group runs any more."""
    deadline = time.monotonic() + 20
    while left := [process for process in Path("/proc").glob("[0-9]*") if is_of(process, group)]:
        assert time.monotonic() < deadline, [(process / "cmdline").read_bytes() for process in left]
        time.sleep(0.05)


def is_of(process: Path, group: int) -> bool:
    """Whether a process runs, and is of a group."""
    try:
        state, _, its_group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return state != "Z" and int(its_group) == group


def losses(folder: Path) -> dict[int, str]:
    """The loss of every step, to the last bit."""
    return {row["step"]: float.hex(row["train/loss"]) for row in TRAINING.rows(folder) if "train/loss" in row}


def assert_same(folder: Path, whole: Path) -> None:
    """That a run is to the last bit what another is: losses, metrics, weights, optimizer."""
    assert list(losses(folder)) == list(range(1, STEPS + 1))
    assert losses(folder) == losses(whole)
    assert TRAINING.timeless(folder) == TRAINING.timeless(whole)
    ours, theirs = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder, whole))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    for one, other in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        for index, moments in one["state"].items():
            assert all(torch.equal(value, other["state"][index][name]) for name, value in moments.items())
    records = [json.loads((run / "run.json").read_text()) for run in (folder, whole)]
    assert [record["status"] for record in records] == ["finished", "finished"]
    assert records[0]["final"] == records[1]["final"]
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture(scope="session")
def undisturbed(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run that nothing disturbed; each is made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(model: str, *more: str, environment: dict[str, str] | None = None) -> Path:
        if (model, *more) not in made:
            folder = tmp_path_factory.mktemp("whole") / model
            carried_out(command(folder, model, *SETTINGS, *more), environment)
            made[(model, *more)] = folder
        return made[(model, *more)]

    return run


@pytest.fixture
def moments() -> random.Random:
    """Random moments, from a seed that is printed; FAULTS_SEED=... repeats them."""
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"FAULTS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def tools() -> dict[str, Any]:
    """What the tests do with runs."""
    return {
        "killed": killed,
        "carried_out": carried_out,
        "assert_same": assert_same,
        "Killable": Killable,
        "settings": SETTINGS,
    }
