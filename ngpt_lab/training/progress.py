"""The progress bar: loss, tokens per second and time left."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ngpt_lab.training.module import BackboneModule

SHOWN = {"loss": "train/loss", "tokens/s": "train/tokens_per_second", "val": "val/loss"}


class Progress(RichProgressBar):
    """Lightning's rich bar with the figures of the latest logged row, so that it costs the loop no read-out of its own."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)

    def get_metrics(self, trainer: Trainer, pl_module: BackboneModule) -> dict[str, Any]:
        """What stands beside the bar."""
        row = {**pl_module.latest_row, **pl_module.evaluated}
        return {name: f"{row[key]:.4g}" for name, key in SHOWN.items() if key in row}

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"  # a run has steps, not epochs
