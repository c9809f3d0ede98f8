"""What `predict` leaves behind."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically


class PredictionsFile(Callback):
    """Writes predictions.safetensors: `loss` (N, T), the loss of every token of the test windows, in nats.

    Args:
        folder: where the file goes.

    Raises:
        InputError: it is there already.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.safetensors"
        if self.path.exists():
            raise InputError(f"{self.path} is there already: choose another --trainer.default_root_dir")
        self._losses: list[Tensor] = []

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep a batch's losses."""
        self._losses.append(outputs.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them all."""
        write_atomically(self.path, save({"loss": torch.cat(self._losses)}))
