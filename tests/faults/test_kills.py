"""Whatever kills a run, it goes on as if nothing had happened, to the last bit."""

import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.training.checkpoints import load, step_files

Command = Callable[..., list[str]]
Whole = Callable[..., Path]
Tools = dict[str, Any]

# How often each phase begins in a run, at the least: the moment is drawn from these.
PHASES = {"training": 35, "stepping": 11, "validating": 19, "saving": 9}
MODELS = ("ngpt", "nemotron")
# Five in training, in validation and while a checkpoint is written, the models in turn; with the five in which tokens are made
# (test_tokenizing.py) twenty in all.
MOMENTS = [
    (MODELS[(number + turn) % 2], phase)
    for turn, phases in enumerate([("training", "stepping"), ("validating",), ("saving",)])
    for number, phase in enumerate(islice(cycle(phases), 5))
]
QUICK = [("nemotron", "saving")]
DEVICES = ("--trainer.devices=2", "--trainer.strategy=ddp")
AUTO = "--ckpt_path=auto"


def marked() -> list[Any]:
    """One for every day, and all of them for `make faults`."""
    quick = [pytest.param(*moment, id="-".join(moment)) for moment in QUICK]
    slow = [
        pytest.param(*moment, id=f"{'-'.join(moment)}-{number}", marks=pytest.mark.faults)
        for number, moment in enumerate(MOMENTS, start=1)
    ]
    return quick + slow


@pytest.mark.parametrize(("model", "phase"), marked())
def test_a_run_that_was_killed_ends_like_one_that_was_not(
    model: str, phase: str, undisturbed: Whole, command: Command, moments: random.Random, tools: Tools, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", model, *tools["settings"], AUTO)
    at, later = moments.randrange(PHASES[phase]), moments.uniform(0, 0.1)
    print(f"killed {later * 1000:.0f} ms after {phase} began for the time numbered {at}")
    tools["killed"](words, phase, at, later)
    tools["carried_out"](words)
    tools["assert_same"](tmp_path / "run", undisturbed(model))


@pytest.mark.faults
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(
    model: str, undisturbed: Whole, command: Command, moments: random.Random, tools: Tools, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", model, *tools["settings"], AUTO)
    for _ in range(4):
        phase = moments.choice(["training", "stepping", "saving"])
        tools["killed"](words, phase, moments.randrange(3), moments.uniform(0, 0.05))
    tools["carried_out"](words)
    tools["assert_same"](tmp_path / "run", undisturbed(model))


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_asked_to_end_within_an_accumulated_step_ends_like_one_that_was_not(
    model: str, number: int, undisturbed: Whole, command: Command, moments: random.Random, tools: Tools, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", model, *tools["settings"], AUTO)
    at = moments.choice([k for k in range(30) if k % 3])
    print(f"asked at micro-batch {at}")
    with tools["Killable"](words, "training", at) as run:
        run.arrives()
        run.send(number, everyone=False)
        code, told = run.ends()
    assert code == 143
    assert "Traceback" not in told
    assert f"--trainer.default_root_dir={tmp_path / 'run'} --ckpt_path=auto goes on" in told.splitlines()[-1]
    # Asked for within step n, saved after step n.
    assert max(step_files(tmp_path / "run")) >= at // 3 + 1
    tools["carried_out"](words)
    tools["assert_same"](tmp_path / "run", undisturbed(model))


@pytest.mark.faults
@pytest.mark.parametrize(("model", "phase"), [("ngpt", phase) for phase in PHASES] + [("nemotron", "training")])
def test_two_processes_that_were_killed_go_on_as_if_they_had_not_been(
    model: str, phase: str, undisturbed: Whole, command: Command, moments: random.Random, tools: Tools, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", model, *tools["settings"], *DEVICES, AUTO)
    at = moments.randrange(PHASES[phase] // 2)  # of the validation each process has half
    tools["killed"](words, phase, at, moments.uniform(0, 0.1))
    tools["carried_out"](words)
    tools["assert_same"](tmp_path / "run", undisturbed(model, *DEVICES))


@pytest.mark.faults
def test_two_processes_that_were_asked_to_end_go_on_as_if_they_had_not_been(
    undisturbed: Whole, command: Command, moments: random.Random, tools: Tools, tmp_path: Path
) -> None:
    words = command(tmp_path / "run", "ngpt", *tools["settings"], *DEVICES, AUTO)
    with tools["Killable"](words, "training", moments.choice([k for k in range(24) if k % 3])) as run:
        run.arrives()
        run.send(signal.SIGTERM, everyone=False)  # to the first process alone
        code, told = run.ends()
    assert code == 143, told
    assert "Traceback" not in told
    tools["carried_out"](words)
    tools["assert_same"](tmp_path / "run", undisturbed("ngpt", *DEVICES))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder for a run, and one for temporary files on another file system."""
    places = [place for place in (tmp_path, Path("/dev/shm"), Path("/tmp"), Path.home(), Path("/var/tmp")) if place.is_dir()]
    apart = [(one, two) for one in places for two in places if one.stat().st_dev != two.stat().st_dev]
    assert apart, f"all of {places} are on one file system"
    with tempfile.TemporaryDirectory(dir=apart[0][0]) as runs, tempfile.TemporaryDirectory(dir=apart[0][1]) as temporary:
        assert os.stat(runs).st_dev != os.stat(temporary).st_dev
        yield Path(runs), Path(temporary)


@pytest.mark.faults
def test_on_another_file_system_every_checkpoint_that_is_seen_is_whole_and_nothing_is_left(
    elsewhere: tuple[Path, Path], undisturbed: Whole, command: Command, moments: random.Random, tools: Tools
) -> None:
    runs, temporary = elsewhere
    environment = {"TMPDIR": str(temporary)}
    words = command(runs / "run", "ngpt", *tools["settings"], AUTO)
    halves = 0
    for _ in range(6):
        tools["killed"](words, "saving", moments.randrange(2), moments.uniform(0, 0.25), environment)
        for path in step_files(runs / "run").values():
            assert load(path)["global_step"] > 0
        halves += len(list((runs / "run" / "checkpoints").glob(".*.tmp")))
        assert list(temporary.rglob("*")) == []
    print(f"{halves} half-written files were seen under temporary names")
    assert halves > 0  # else nothing was killed while it was written
    tools["carried_out"](words, environment)
    tools["assert_same"](runs / "run", undisturbed("ngpt"))
    assert list(temporary.rglob("*")) == []
