"""Checkpoints that are never half-written and never unpickle code."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ngpt_lab.errors import InputError
from ngpt_lab.files import atomic_file


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name in the checkpoint's own folder, then renames; reads tensors and plain values alone."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """See `CheckpointIO`."""
        with atomic_file(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `CheckpointIO`.

        Raises:
            InputError: there is no such file, or it is no checkpoint.
        """
        if not Path(path).is_file():
            raise InputError(f"there is no checkpoint {path}")
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise InputError(f"{path} is not a checkpoint that can be read: {str(error).splitlines()[0]}") from error
        return checkpoint


class RunCheckpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also keeps the last step as last.ckpt, multiple of its interval or not."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """See `ModelCheckpoint`; saved here and not after the fit, when the loader's place is gone."""
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        if trainer.global_step == trainer.max_steps and self.dirpath is not None:
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")


def check_shapes(module: torch.nn.Module, checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint whose weights are not those of `module`.

    Raises:
        InputError: names the file and the first weight that is missing, extra or of another shape.
    """
    have = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    want = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{path} does not fit the model: {name} is {have.get(name, 'absent')} in the file and "
                f"{want.get(name, 'absent')} in the model; use the config the run was made with"
            )
