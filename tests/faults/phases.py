"""The callback that tells the test where a run is, and dwells there so that a kill finds it."""

import io
import os
import time
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Callback, Trainer

from ngpt_lab.training import checkpoints

PHASE, AT, MARKER = os.environ["PHASE"], int(os.environ["PHASE_AT"]), Path(os.environ["PHASE_MARKER"])
DWELL = 0.01


class Tells(Callback):
    """Touches the marker when the phase begins for the time numbered AT; another phase is another hook that calls `now`."""

    def __init__(self) -> None:
        self.counted = 0
        if PHASE == "saving":
            checkpoints.write = self.write_slowly

    def now(self, phase: str) -> None:
        """Tell that a phase begins, where it is the one that is waited for."""
        if phase != PHASE:
            return
        self.counted += 1
        if self.counted > AT:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                MARKER.touch()
            time.sleep(DWELL)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """A micro-batch of training."""
        self.now("training")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """The optimizer's step."""
        self.now("stepping")

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """A batch of validation, whether within the fit or after it."""
        self.now("validating")

    def write_slowly(self, checkpoint: dict[str, Any], file: IO[bytes]) -> None:
        """Write a checkpoint piece by piece."""
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        content = whole.getbuffer()
        for start in range(0, len(content), 2**16):
            file.write(content[start : start + 2**16])
            self.now("saving") if start == 0 else time.sleep(DWELL if self.counted > AT else 0)
