"""When a run's checkpoints are saved, and which are kept."""

import os
import secrets
import subprocess
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed as dist

from ngpt_lab.errors import InputError
from ngpt_lab.files import writing
from ngpt_lab.interruption import Interrupted, Signals
from ngpt_lab.training.checkpoints import LAST, remove, step_file, step_files
from ngpt_lab.training.metrics_file import MetricsFile
from ngpt_lab.training.parallel.together import Sum, first_alone, in_company, together


class RunCheckpoints(Checkpoint):
    """Saves checkpoints/step-000123.ckpt, on optimizer steps alone: within an accumulated step gradients would be lost.

    It saves every so many steps, every so many minutes, before each validation, at the last step, and when the process is
    asked to end (SIGTERM, SIGUSR1). checkpoints/last.ckpt is a link to the newest, for people and tools.

    Args:
        every_n_train_steps: save whenever the number of steps is a multiple; null for never.
        every_minutes: save after the first step that ends so long after the last save; null for never.
        keep: how many checkpoints are kept, the newest; null keeps all.
        sharded: whether a checkpoint is a folder to which every process writes its pieces, and not one file; for the
            strategies fsdp2, tp and fsdp2+tp. Either kind can be gone on from on any number of devices.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = 1000,
        every_minutes: float | None = None,
        keep: int | None = 2,
        sharded: bool = False,
    ) -> None:
        settings = {"every_n_train_steps": every_n_train_steps, "every_minutes": every_minutes, "keep": keep}
        for name, value in settings.items():
            if value is not None and value <= 0:
                raise InputError(f"checkpoint.{name} is {value}: give a number above 0, or null")
        self.every_n_train_steps, self.every_minutes, self.keep = every_n_train_steps, every_minutes, keep
        self.sharded = sharded
        self.signals = Signals()
        self._seen_step = 0
        self._saved_at = 0.0
        self._asked_before: Sum | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the strategy write checkpoints of the form that is asked for.

        Raises:
            InputError: it has no pieces to write.
        """
        if self.sharded and not hasattr(trainer.strategy, "sharded_checkpoints"):
            raise InputError("checkpoint.sharded is true, but the model is not in pieces: set it to false, or use fsdp2 or tp")
        if hasattr(trainer.strategy, "sharded_checkpoints"):
            trainer.strategy.sharded_checkpoints = self.sharded

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting at the step the run starts or resumes at."""
        self._seen_step = trainer.global_step
        self._saved_at, self._asked_before = monotonic(), None
        self.signals.defer()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """After an optimizer step: save if it is its turn, and end the process where that was asked for.

        Here and not after the fit, when the loader's place is gone.

        Raises:
            Interrupted: a signal asked for the end.
        """
        if trainer.global_step == self._seen_step:  # within an accumulated step
            return
        self._seen_step = trainer.global_step
        ends, late = self._asked(trainer.strategy.root_device)
        if ends or late or self._is_due(trainer):
            self.save(trainer)
        if ends:
            self.signals.received = self.signals.received or "a signal to another process"
            self.signals.end()

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint of this step, point last.ckpt at it, and remove those that are not kept any more."""
        together(lambda: [logger.save() for logger in trainer.loggers if isinstance(logger, MetricsFile)])
        # What lightning's trainer does to save, but that no process waits for one that could not write.
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)
        path = step_file(Path(trainer.default_root_dir), trainer.global_step)
        together(lambda: trainer.strategy.save_checkpoint(checkpoint, path))
        first_alone(lambda: self._tidy(path))
        self._saved_at, self._asked_before = monotonic(), None

    def _tidy(self, path: Path) -> None:
        """Point last.ckpt at the newest checkpoint, and remove those that are not kept any more."""
        link(path)
        if self.keep is not None:
            for old in list(step_files(path.parent.parent).values())[: -self.keep]:
                with writing(old):
                    remove(old)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint lies before each validation, which can be left at once."""
        self.signals.at_once()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to training, if that is where it came from."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.signals.defer()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What follows can be left at once."""
        self.signals.at_once()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The test can be left at once."""
        self.signals.at_once()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the processes that this one started, which lightning would otherwise take for crashed."""
        children: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        if isinstance(exception, Interrupted):
            for child in children:
                child.terminate()
            children.clear()  # the list that lightning watches

    def _is_due(self, trainer: Trainer) -> bool:
        step, every = trainer.global_step, self.every_n_train_steps
        ends = step == trainer.max_steps or trainer.should_stop or trainer.is_last_batch
        return ends or (every is not None and step % every == 0) or validation_follows(trainer)

    def _asked(self, device: torch.device) -> tuple[bool, bool]:
        """Whether any process was asked to end, and whether the first one's clock says that it is time to save.

        Several processes agree on it; on a GPU on what was so a step before, so that nothing waits for the device.
        """
        ends = self.signals.received is not None
        late = self.every_minutes is not None and monotonic() - self._saved_at >= 60 * self.every_minutes
        if not in_company():
            return ends, late
        flags = torch.zeros(2, device=device)
        for flag, is_set in zip(flags, (ends, late and dist.get_rank() == 0), strict=True):
            if is_set:
                flag.fill_(1)  # a copy from the CPU would wait
        now = Sum(flags)
        before, self._asked_before = self._asked_before, now
        read = before if device.type == "cuda" else now
        ends, late = (False, False) if read is None else map(bool, read.numbers())
        return ends, late


def first_process_says(trainer: Trainer, what: bool) -> bool:
    """What the first process's clock says, for all: they save together, or wait for each other forever."""
    return bool(trainer.strategy.broadcast(what))


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation begins before the next optimizer step ends: saving at that one would be too late."""
    every, loop = trainer.val_check_batch, trainer.fit_loop.epoch_loop
    if not loop._should_check_val_epoch():
        return False
    interval: float | None = getattr(trainer, "_val_check_time_interval", None)
    if interval is not None:
        return first_process_says(trainer, monotonic() - trainer._last_val_time >= interval)  # type: ignore[attr-defined]
    return any(validation_is_due(trainer, every, ahead) for ahead in range(trainer.accumulate_grad_batches))


def validation_is_due(trainer: Trainer, every: float | None, ahead: int = 0) -> bool:
    """Whether lightning validates after the micro-batch that is `ahead` of the latest, every so many of them."""
    if every is None or every == float("inf"):
        return False
    loop = trainer.fit_loop.epoch_loop
    latest = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
    return (latest + 1 + ahead) % every == 0


def link(path: Path) -> None:
    """Make last.ckpt beside `path` a link to it, at once.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{LAST}.{secrets.token_hex(4)}.tmp")
    with writing(path.parent / LAST):
        temporary.symlink_to(path.name)
        os.replace(temporary, path.parent / LAST)
