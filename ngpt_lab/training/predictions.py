"""What `predict` leaves behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.nn.labels import IGNORED


class PredictionsFile(Callback):
    """Writes predictions.safetensors: what the model's `predict_step` returns under its names, for the whole test split.

    That is `loss` (N, T) of a language model, in nats; `scores` (N, labels) of sequences; `labels` (N, T) of tokens; `start`,
    `end`, `score` and `index` (N,) of answers.

    Args:
        folder: where the file goes.

    Raises:
        InputError: it is there already.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "predictions.safetensors"
        if self.path.exists():
            raise InputError(f"{self.path} is there already: choose another --trainer.default_root_dir")
        self._batches: dict[str, list[Tensor]] = {}

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Tensor], *_: Any
    ) -> None:
        """Keep a batch's."""
        for name, value in outputs.items():
            self._batches.setdefault(name, []).append(value.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them all."""
        write_atomically(self.path, save({name: joined(batches) for name, batches in self._batches.items()}))


def joined(batches: list[Tensor]) -> Tensor:
    """Batches as one tensor; rows of tokens that are shorter than the longest are filled up with -100."""
    longest = max(batch.shape[-1] for batch in batches) if batches[0].dim() > 1 else 0
    return torch.cat([F.pad(b, (0, longest - b.shape[-1]), value=IGNORED) if longest else b for b in batches])
