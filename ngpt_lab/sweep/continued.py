"""A run that goes on as if it had never stopped: the same rows in its metrics, none missing and none twice."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ngpt_lab.files import write_atomically
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.metrics_file import MetricsFile


def put_back(folder: Path, step: int) -> None:
    """Bring a run's folder to the moment its last checkpoint, of `step`, was written: before any evaluation at that step."""
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.is_file() else []
    # A crash can leave the last row half-written: only whole lines end in a newline.
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    kept = [row for row in rows if row["step"] < step or (row["step"] == step and "train/loss" in row)]
    write_atomically(metrics, "".join(json.dumps(row) + "\n" for row in kept))
    for unfinished in folder.rglob(".*.tmp"):
        unfinished.unlink()
    last = folder / "checkpoints" / "last.ckpt"
    for checkpoint in last.parent.glob("*.ckpt"):
        if checkpoint.stat().st_mtime_ns > last.stat().st_mtime_ns:  # of a later step
            checkpoint.unlink()


class Continuation(Callback):
    """What lightning leaves out when it goes on from a checkpoint that was written before a validation, or before the end."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the time of the rows go on where there is nothing left to train, and so no start of it."""
        for metrics in trainer.loggers:
            if isinstance(metrics, MetricsFile) and checkpoint["global_step"] >= trainer.max_steps:
                metrics.cut_back(checkpoint["global_step"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Carry out the validation that is due right after the checkpoint, which lightning takes for done."""
        loop = trainer.fit_loop.epoch_loop
        if trainer.val_check_batch and (loop.total_batch_idx + 1) % trainer.val_check_batch == 0:
            loop.val_loop.restarting = False
            trainer.validating = True
            loop.val_loop.run()
            trainer.training = True


class ContinuedCLI(CLI):
    """`fit` from the last checkpoint in a folder that was put back to it."""

    def before_fit(self) -> None:
        """Lightning's hook."""
        self.trainer.callbacks.append(Continuation())  # type: ignore[attr-defined]
