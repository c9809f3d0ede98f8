"""A run that goes on as if it had never stopped."""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.optim.lr_scheduler import LambdaLR

from ngpt_lab.files import writing
from ngpt_lab.training import random_state
from ngpt_lab.training.checkpoint_form import check_form, check_optimizer_states, check_weights
from ngpt_lab.training.checkpoints import FOLDER, BrokenCheckpointError, outline, remove, step_file, step_files
from ngpt_lab.training.guard import DONE
from ngpt_lab.training.guard import FILE as INCIDENTS
from ngpt_lab.training.metrics_file import MetricsFile, keep_rows
from ngpt_lab.training.parallel.together import first_alone
from ngpt_lab.training.run_checkpoints import link, validation_is_due


@dataclass(frozen=True)
class Origin:
    """The checkpoint a run goes on from.

    Args:
        path: the file.
        step: how many steps it comes after.
        settings: those it was trained with, as JSON; None where it has none.
        changed: what is set otherwise now: key to value before and value now.
        broken: newer checkpoints of the run, which are not gone on from because they are broken.
    """

    path: Path
    step: int
    settings: str | None
    changed: dict[str, list[Any]] = field(default_factory=dict)
    broken: tuple[Path, ...] = ()


def origin(path: Path) -> Origin:
    """What can be gone on from in a file.

    Raises:
        InputError: it cannot be read.
        BrokenCheckpointError: it is no sound checkpoint of a run.
    """
    checkpoint = outline(path)
    check_form(checkpoint, path)
    return Origin(path, checkpoint["global_step"], checkpoint.get("settings"))


def weights(path: Path) -> Origin:
    """What can be evaluated in a file, which need not hold more than weights.

    Raises:
        InputError: it cannot be read.
        BrokenCheckpointError: it holds no sound weights.
    """
    check_weights(outline(path), path)
    return Origin(path, 0, None)


def newest(folder: Path, say: Callable[[str], None] = random_state.say) -> Origin | None:
    """The newest sound checkpoint of the run in `folder`; None where the run has none at all.

    Args:
        folder: the run's folder.
        say: told of each newer one that is broken.

    Raises:
        InputError: one cannot be read now, which does not say that it is broken.
        BrokenCheckpointError: all of them are broken.
    """
    files = step_files(folder)
    broken: list[Path] = []
    for path in reversed(files.values()):
        try:
            return replace(origin(path), broken=tuple(broken))
        except BrokenCheckpointError as error:
            broken.append(path)
            say(f"{error}; the checkpoint before is tried")
    if files:
        told = f"none of the {len(files)} checkpoints in {folder / FOLDER} can be read: start a new run elsewhere"
        raise BrokenCheckpointError(told)
    return None


def put_back(folder: Path, step: int, broken: Iterable[Path] = ()) -> None:
    """Bring a run's folder to the moment its checkpoint of `step` was written: before any evaluation after that step.

    What the run was stopped for stays: it is why it goes on otherwise.

    Args:
        folder: the run's folder.
        step: the checkpoint's.
        broken: newer checkpoints that are not removed but set aside: they may hold what can be rescued.
    """
    keep_rows(folder / "metrics.jsonl", lambda row: row["step"] < step or (row["step"] == step and "train/loss" in row))
    keep_rows(folder / INCIDENTS, lambda row: row["step"] <= step or row.get("done") == DONE["stop"])
    for unfinished in list(folder.rglob(".*.tmp")):
        if unfinished.exists():  # it may have lain in one that is gone
            remove(unfinished)
    for path in broken:
        aside = path.with_name(f"{path.name}.broken")
        remove(aside)  # of the same step, broken earlier
        os.replace(path, aside)
        random_state.say(f"{path} is kept as {aside.name}")
    scales = {
        path: int(number[1])
        for path in (folder / "scales").glob("step-*.safetensors")
        if (number := re.fullmatch(r"step-(\d+)\.safetensors", path.name))
    }
    for path, later in [*scales.items(), *((path, number) for number, path in step_files(folder).items())]:
        if later > step:
            remove(path)
    if step_file(folder, step).exists():
        link(step_file(folder, step))


class Continuation(Callback):
    """Saves and puts back what lightning leaves out: random states, settings, a validation that is due, the folder's files.

    Args:
        folder: the run's folder.
        settings: the run's, as JSON.
        goes_on_from: the checkpoint it goes on from; None for a run from the start.
        tell: is called when the run goes on from it.

    Attributes:
        begun: whether everything is in place and training goes on.
    """

    def __init__(
        self, folder: Path, settings: str, goes_on_from: Origin | None, tell: Callable[[Trainer], None] = lambda trainer: None
    ) -> None:
        self.folder, self.settings, self.origin, self.tell = folder, settings, goes_on_from, tell
        self.begun = False
        self._random_states: list[dict[str, Any]] | None = None
        self._optimizer_states: list[Any] = []
        self._hyperparameters: list[list[dict[str, Any]]] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random numbers' state of every process, and the settings."""
        checkpoint["random_states"] = random_state.collect(trainer)
        checkpoint["settings"] = self.settings

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take note of what is put back later."""
        self._random_states = checkpoint.get("random_states")
        self._optimizer_states = checkpoint["optimizer_states"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the optimizer's settings, which the checkpoint's are about to replace."""
        self._hyperparameters = [[without(group, "params") for group in o.param_groups] for o in trainer.optimizers]
        # Other strategies keep the state in forms of their own.
        if self._optimizer_states and isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            check_optimizer_states(self._optimizer_states, trainer.optimizers, str(trainer.ckpt_path))
        self._optimizer_states = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the random numbers back, and carry out the validation that is due right after the checkpoint.

        Lightning takes that validation for done.
        """
        if self.origin is None:
            self.begun = True
            return
        self._set_hyperparameters(trainer)
        if self._random_states is not None:
            random_state.put_back(self._random_states, trainer)
        self._begin(trainer, self.origin)
        loop = trainer.fit_loop.epoch_loop
        if loop._should_check_val_epoch() and validation_is_due(trainer, trainer.val_check_batch):
            loop.val_loop.restarting = False
            trainer.validating = True
            loop.val_loop.run()
            trainer.training = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There may have been nothing left to train, and so no start of it."""
        if self.origin is not None and not self.begun:
            self._begin(trainer, self.origin)

    def _begin(self, trainer: Trainer, start: Origin) -> None:
        """Put the folder back, now that nothing refuses to go on, and let the time of the rows go on."""
        self.begun = True
        first_alone(lambda: self._put_back(start))
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.go_on()
        self.tell(trainer)

    def _put_back(self, start: Origin) -> None:
        with writing(self.folder):
            put_back(self.folder, start.step, start.broken)

    def _set_hyperparameters(self, trainer: Trainer) -> None:
        """What the config says of the optimizer and the schedule holds, also where it says otherwise than the checkpoint."""
        for optimizer, groups in zip(trainer.optimizers, self._hyperparameters, strict=True):
            for group, now in zip(optimizer.param_groups, groups, strict=True):
                group.update(without(now, "lr"))
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                schedule.base_lrs = [group["initial_lr"] for group in schedule.optimizer.param_groups]
                for group, base, factor in zip(
                    schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
                ):
                    group["lr"] = base * factor(schedule.last_epoch)


def without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """All of a mapping but one key."""
    return {key: value for key, value in tree.items() if key != name}


def recorded(folder: Path) -> dict[str, Any]:
    """A run's run.json; empty where it has none that can be read."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
