"""One run, from where it stands to its end; nothing here loads torch before a run is carried out."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.run import PlannedRun

if TYPE_CHECKING:
    from ngpt_lab.interruption import Signals


def train(run: PlannedRun) -> None:
    """Carry out a run: from its last checkpoint where it was interrupted, else from the start.

    Raises:
        InputError: bad input, or a loss that is not finite.
    """
    if not run.finished:
        fit(run, prepare(run))


def prepare(run: PlannedRun) -> bool:
    """Make the folder of a run ready; whether the run goes on from a checkpoint in it.

    Raises:
        InputError: the run's record is there and cannot be read, as where a file system is away: nothing is removed.
    """
    record = run.folder / "run.json"
    try:
        record.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{record} cannot be read ({error.strerror}): nothing of the run was removed, try again") from error
    if is_resumable(run):
        # A record may say finished and not show it, as where its tokens are not all: the run's end is carried out again.
        interrupt(run)
        return True
    clear(run)
    return False


def fit(run: PlannedRun, goes_on: bool, signals: "Signals | None" = None) -> None:
    """Train a run whose folder is ready, or be one of the processes that train it.

    Args:
        run: the run.
        goes_on: from its last checkpoint.
        signals: how the process is asked to end.

    Raises:
        InputError: bad input, or a loss that is not finite.
        Interrupted: it was asked to end, and can be gone on with.
    """
    from ngpt_lab.training.cli import CLI

    words = [*run.fit_arguments, *(["--ckpt_path=last"] if goes_on else [])]
    try:
        with environment(run.environment), quiet():  # the display of all runs speaks for each
            CLI(["fit", *words], final_splits=run.splits, extra=dict(run.labels), signals=signals)
    finally:
        leave_nothing_behind()


def is_resumable(run: PlannedRun) -> bool:
    """Whether a run can go on from a checkpoint: it has one, has not failed, and is this sweep's."""
    from ngpt_lab.training.checkpoints import BrokenCheckpointError
    from ngpt_lab.training.resume import newest

    record = run.record()
    if record.get("status") in (None, "failed") or record.get("sweep") != run.labels.get("sweep"):
        return False
    try:
        return newest(run.folder, say=lambda told: None) is not None
    except BrokenCheckpointError:  # all of them; what cannot be read now is no reason to begin anew
        return False


def clear(run: PlannedRun) -> None:
    """Remove what an attempt left."""
    # First its record: a run without one is never gone on with, so that a crash in the middle of this leaves nothing that
    # seems to be whole.
    (run.folder / "run.json").unlink(missing_ok=True)
    if run.folder.exists():
        shutil.rmtree(run.folder)


def leave_nothing_behind() -> None:
    """Clear what would outlast a run in its process: compiled code, of which there may be so much, and wandb's run."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch"].compiler.reset()
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def record_failure(run: PlannedRun, error: str) -> None:
    """Make run.json say that a run failed, where the run has not come so far as to say so itself."""
    record = run.record()
    if record.get("status") != "failed":
        content = {**run.labels, **record, "status": "failed", "error": error}
        write_atomically(run.folder / "run.json", json.dumps(content, indent=1) + "\n")


def interrupt(run: PlannedRun) -> None:
    """Make the record of a run, where it has one, say that it was interrupted and can be gone on with."""
    if record := run.record():
        content = {**record, "status": "interrupted", "error": None}
        write_atomically(run.folder / "run.json", json.dumps(content, indent=1) + "\n")


@contextmanager
def quiet() -> Iterator[None]:
    """No word from lightning but warnings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for what happens within, and for the processes started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
