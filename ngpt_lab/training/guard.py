"""The callback that stops a run whose loss is not finite, or leaves such a step out, and looks for spikes."""

import json
import math
import os
from collections import deque
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.files import sync_folder, writing
from ngpt_lab.nn.shards import local
from ngpt_lab.training.checkpoint_form import leaves
from ngpt_lab.training.metrics_file import whole_rows
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.parallel.together import Sum

FILE = "incidents.jsonl"
DONE = {"stop": "stopped", "skip": "skipped", "record": "recorded"}


class LossGuard(Callback):
    """Watches the loss and the gradient norm of every step, before the optimizer takes it; writes incidents.jsonl.

    A step that is left out changes no bit of weights and optimizer state; the schedule moves on. No checkpoint is ever saved
    of weights that are not finite. On a GPU a step is judged when the next one is about to be taken, so that nothing waits
    for the device; leaving steps out needs the judgement at once, and waits.

    Args:
        nonfinite: on a loss or gradient norm that is not finite stop the run, or leave the step out.
        spike: on a loss far above those before it record the step's batches, or leave the step out as well.
        spike_deviations: what is far above: so many standard deviations above the mean (6 over 128 steps in OLMo-core's
            SkipStepOptimizer); null for no spikes.
        spike_window: over how many steps both are taken; with fewer before it no step is a spike.
    """

    def __init__(
        self,
        nonfinite: Literal["stop", "skip"] = "stop",
        spike: Literal["record", "skip"] = "record",
        spike_deviations: float | None = 6.0,
        spike_window: int = 128,
    ) -> None:
        if spike_window < 2 or (spike_deviations is not None and spike_deviations <= 0):
            raise InputError("guard.spike_window must be at least 2, and guard.spike_deviations above 0 or null")
        self.nonfinite, self.spike, self.spike_deviations = nonfinite, spike, spike_deviations
        self._losses: deque[float] = deque(maxlen=spike_window)
        self._file = Path(FILE)
        self._writes = False
        self._pending: Reading | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: BackboneModule) -> None:
        """Have a say in every step."""
        self._file, self._writes = Path(trainer.default_root_dir) / FILE, trainer.is_global_zero
        pl_module.veto = lambda: self.judge(trainer, pl_module)

    def judge(self, trainer: Trainer, module: BackboneModule) -> bool:
        """Whether the step that is about to be taken must be left out.

        Raises:
            InputError: the run must stop, for this step or the one before.
        """
        self.settle()
        values = torch.stack([module.train_loss.float(), module.grad_norm.float()])
        last = trainer.fit_loop.epoch_loop.total_batch_idx
        batches = range(last - module.micro_batches + 1, last + 1)
        self._pending = Reading(trainer, trainer.global_step + 1, batches, values)
        can_wait = values.is_cuda and "skip" not in (self.nonfinite, self.spike)
        return False if can_wait else self.settle()

    def settle(self) -> bool:
        """Judge the step that waits for it; whether it must be left out.

        Raises:
            InputError: the run must stop.
        """
        reading, self._pending = self._pending, None
        if reading is None:
            return False
        loss, norm = reading.numbers()
        finite = math.isfinite(loss) and math.isfinite(norm)
        spread = self._spread(loss) if finite else None
        if math.isfinite(loss):
            self._losses.append(loss)
        if finite and spread is None:
            return False
        policy = self.spike if finite else self.nonfinite
        self._write(reading, loss, norm, spread or {}, DONE[policy])
        if policy == "stop":
            raise InputError(
                f"the {'gradient' if math.isfinite(loss) else 'loss'} is not finite at step {reading.step} "
                f"({of_batches(reading.batches)}; {self._file} names them): lower the learning rate, or leave such steps out "
                "with --guard.nonfinite=skip"
            )
        return policy == "skip"

    def on_train_end(self, trainer: Trainer, pl_module: BackboneModule) -> None:
        """Judge the last step too."""
        self.settle()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: BackboneModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save what is not finite.

        Raises:
            InputError: names the step.
        """
        finite = all_finite([checkpoint["state_dict"], checkpoint["optimizer_states"]])
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):  # of pieces, each process judges its own
            raise InputError(
                f"the weights are not finite after step {trainer.global_step}, and are not saved: lower the learning rate"
            )

    def state_dict(self) -> dict[str, Any]:
        """The losses that a spike is compared with; the latest step is judged before they are saved."""
        self.settle()
        return {"losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._losses.clear()
        self._losses.extend(float(loss) for loss in state_dict["losses"])

    def _spread(self, loss: float) -> dict[str, float] | None:
        """Mean and standard deviation of the losses before, where this one is a spike."""
        if self.spike_deviations is None or len(self._losses) < (self._losses.maxlen or 0):
            return None
        mean, deviation = float(np.mean(self._losses)), float(np.std(self._losses))
        return {"mean": mean, "deviation": deviation} if loss > mean + self.spike_deviations * deviation else None

    def _write(self, reading: "Reading", loss: float, norm: float, spread: dict[str, float], done: str) -> None:
        if not self._writes:
            return
        incident = {
            "step": reading.step,
            "reason": "spike" if spread else "not finite",
            "done": done,
            "loss": loss if math.isfinite(loss) else None,
            "grad_norm": norm if math.isfinite(norm) else None,
            **spread,
            "batches": [batch_identity(reading.trainer, number) for number in reading.batches],
        }
        with writing(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(json.dumps(incident) + "\n")
                file.flush()
                os.fsync(file.fileno())  # at once: there are few, and a checkpoint that comes after relies on it
            sync_folder(self._file.parent)


class Reading:
    """A step's loss and gradient norm on their way from the device: reading them waits for that step alone."""

    def __init__(self, trainer: Trainer, step: int, batches: range, values: Tensor) -> None:
        self.trainer, self.step, self.batches = trainer, step, batches
        self._sum = Sum(values)

    def numbers(self) -> tuple[float, float]:
        """The loss and the gradient norm, those of all processes: they come to the same judgement."""
        loss, norm = self._sum.means()
        return loss, norm


def batch_identity(trainer: Trainer, number: int) -> dict[str, Any]:
    """What a record keeps of a training batch: its number, and which windows it is where the loader tells."""
    identity = getattr(trainer.train_dataloader, "identity", None)
    return {"batch": number} if identity is None else dict(identity(number))


def of_batches(batches: range) -> str:
    """Batches in words."""
    return f"batch {batches[0]}" if len(batches) == 1 else f"batches {batches[0]} to {batches[-1]}"


def incidents(folder: Path) -> int:
    """How many incidents a run had."""
    return len(whole_rows(folder / FILE))


def all_finite(tree: Any) -> bool:
    """Whether every number of every tensor in a tree is finite; asks each device once."""
    found: dict[torch.device, list[Tensor]] = {}
    for value in leaves(tree):
        if isinstance(value, Tensor):
            value = local(value)
            found.setdefault(value.device, []).append(value.isfinite().all())
    return all(bool(torch.stack(each).all()) for each in found.values())
