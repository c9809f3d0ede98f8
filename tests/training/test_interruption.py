"""A process that is asked to end leaves a run that goes on as if it had never been."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from ngpt_lab.cli import main
from ngpt_lab.interruption import NUMBERS, Interrupted, Signals

Fit = Callable[..., Path]
Readers = dict[str, Callable[[Path], Any]]
Watch = Callable[[Callback], None]
SETTINGS = ["--trainer.accumulate_grad_batches=3", "--model.backbone.attention_dropout=0.3", "--trainer.val_check_interval=9"]
OTHER_HOOKS = [pytest.param(hook, marks=pytest.mark.slow) for hook in ("on_test_start", "setup", "on_fit_start")]


class Asks(Callback):
    """Asks the process to end, once: before a micro-batch, or in a hook."""

    def __init__(self, number: int, hook: str, at: int | None = None) -> None:
        self.number, self.at, self.left = number, at, 1
        setattr(self, hook, self.ask)

    def ask(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if self.left and self.at in (None, trainer.fit_loop.epoch_loop.total_batch_idx):
            self.left = 0
            os.kill(os.getpid(), self.number)


def interrupted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 143
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told.strip().splitlines()[-1]


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_sigterm_within_an_accumulated_step_saves_at_its_end_and_the_run_goes_on(
    model: str,
    fit: Fit,
    read: Readers,
    watch: Watch,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = fit(model, *SETTINGS, name="whole")
    watch(Asks(signal.SIGTERM, "on_train_batch_start", at=13))
    folder = tmp_path / "run"
    words = command(folder, model, *SETTINGS, "--ckpt_path=auto")
    told = interrupted(words, capsys)
    assert told.startswith("ngpt-lab: interrupted by SIGTERM; the same command with")
    assert f"--trainer.default_root_dir={folder} --ckpt_path=auto goes on" in told
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["error"], record["tokens"]) == ("interrupted", None, 5 * record["tokens_per_step"])
    assert read["steps"](folder)[-1] == 5
    main(words)
    assert read["timeless"](folder) == read["timeless"](whole)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert [(again["step"], again["changed"]) for again in record["resumed"]] == [(5, {})]


@pytest.mark.parametrize("hook", ["on_validation_batch_start", *OTHER_HOOKS])
def test_outside_of_training_the_process_ends_at_once(
    hook: str,
    fit: Fit,
    read: Readers,
    watch: Watch,
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ngpt_lab.training.cli.CLI.__init__.__defaults__", (("val", "test"), None, None))
    whole = fit("ngpt", *SETTINGS, name="whole")
    watch(Asks(signal.SIGUSR1, hook))
    folder = tmp_path / "run"
    words = command(folder, "ngpt", *SETTINGS, "--ckpt_path=auto")
    assert "interrupted by SIGUSR1" in interrupted(words, capsys)
    if hook == "on_validation_batch_start":
        assert read["rows"](folder)[-1]["step"] == read["steps"](folder)[-1] == 3
        assert "train/loss" in read["rows"](folder)[-1]
    main(words)
    assert read["timeless"](folder) == read["timeless"](whole)


def test_a_signal_is_kept_until_the_work_can_be_left_and_told_once() -> None:
    with Signals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGTERM"
        with pytest.raises(Interrupted, match="interrupted by SIGTERM"):
            signals.at_once()
        os.kill(os.getpid(), signal.SIGTERM)  # while the process ends
        signals.at_once()


def test_handlers_are_those_of_before_afterwards_and_never_a_threads() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with Signals():
        assert all(signal.getsignal(number) not in before for number in NUMBERS)
    assert [signal.getsignal(number) for number in NUMBERS] == before
    seen: list[Any] = []

    def elsewhere() -> None:
        with Signals() as signals:
            signals.defer()
            seen.extend(signal.getsignal(number) for number in NUMBERS)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == before
