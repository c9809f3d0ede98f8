"""The callback that measures: one row every `log_every_n_steps`, sent to all loggers as one dict."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import save
from torch import Tensor, nn

from ngpt_lab.files import write_atomically
from ngpt_lab.nn.linear import stream_matrices
from ngpt_lab.nn.scale import Scale
from ngpt_lab.training.directions import angles, directions, error
from ngpt_lab.training.metrics_file import STATISTICS, MetricsFile
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.parallel.pieces import as_piece, whole


def named_scales(decoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The used value of every scale of `decoder` under its short name: attention_alpha/03, s_qk/03, s_z."""
    for name, part in decoder.named_modules():
        if isinstance(part, Scale):
            path = name.split(".")
            sublayer = path[2].removesuffix("_residual") + "_" if path[-1] == "alpha" else ""
            layer = f"/{int(path[1]):02d}" if path[0] == "blocks" else ""
            yield f"{sublayer}{path[-1]}{layer}", whole(part.stored.detach()) * part.gain


def statistics(value: Tensor) -> dict[str, float]:
    """Mean magnitude, quantiles 5, 50 and 95, and share negative of a used scale."""
    quantiles = torch.quantile(value.float(), torch.tensor([0.05, 0.5, 0.95], device=value.device))
    numbers = torch.stack([value.abs().mean(), *quantiles, (value < 0).float().mean()]).tolist()
    return dict(zip(STATISTICS, numbers, strict=True))


class Telemetry(Callback):
    """Logs the training rows listed in `ngpt_lab.training.metrics_file.METRICS` every `trainer.log_every_n_steps`.

    Args:
        scales_every_n_steps: how often the full scale vectors are written, as scales/step-NNNNNN.safetensors; 0 for never.
    """

    def __init__(self, scales_every_n_steps: int = 100) -> None:
        self.scales_every_n_steps = scales_every_n_steps
        self._clipped = torch.tensor(0)
        self._seen_step = 0
        self._logged_at = (0.0, 0)
        self._directions: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: BackboneModule) -> None:
        """Tell the metrics file what a step is worth."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.tokens_per_step = pl_module.tokens_per_step

    def on_train_start(self, trainer: Trainer, pl_module: BackboneModule) -> None:
        """Start counting at the step the run starts or resumes at."""
        self._seen_step = trainer.global_step
        self._logged_at = time.monotonic(), trainer.global_step
        if pl_module.backbone.on_sphere and not self._directions:
            self._directions = directions(pl_module.backbone)
        like = {name: matrix.weight for name, matrix in stream_matrices(pl_module.backbone)}
        self._directions = {name: as_piece(of, like[name]).to(pl_module.device) for name, of in self._directions.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: BackboneModule, *_: Any) -> None:
        """After an optimizer step: count it, and log it if it is its turn."""
        step = trainer.global_step
        if step == self._seen_step:  # within an accumulation window
            return
        self._seen_step = step
        self._clipped = self._clipped.to(pl_module.clipped.device) + pl_module.clipped
        if step % trainer.log_every_n_steps == 0 or step == trainer.max_steps:  # type: ignore[attr-defined]
            row = {"train/loss": step_loss(trainer, pl_module), **self._progress(trainer, pl_module, step)}
            row |= self._scales(pl_module) | self._sphere(pl_module)
            pl_module.latest_row = row
            for logger in trainer.loggers:
                logger.log_metrics(row, step=step)
        if self.scales_every_n_steps and step % self.scales_every_n_steps == 0:
            self._write_scales(trainer, pl_module, step)

    def state_dict(self) -> dict[str, Any]:
        """How many steps were clipped; and where the matrices stood at the latest row, if they have moved on since."""
        moved_on = self._seen_step != self._logged_at[1]
        return {"clipped": int(self._clipped), "directions": self._directions if moved_on else {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._clipped = torch.tensor(state_dict["clipped"])
        self._directions = state_dict["directions"]

    def _progress(self, trainer: Trainer, module: BackboneModule, step: int) -> dict[str, float]:
        now, (then, then_step) = time.monotonic(), self._logged_at
        self._logged_at = now, step
        return {
            # The scheduler has moved on to the next step; the optimizer's last step used the rate before.
            "train/lr": module.schedule.factor(step - 1, trainer.max_steps, module.tokens_per_step)
            * trainer.optimizers[0].param_groups[0]["initial_lr"],
            "train/grad_norm": module.grad_norm.item(),
            "train/clipped_share": self._clipped.item() / step,
            "train/tokens_per_second": (step - then_step) * module.tokens_per_step / max(now - then, 1e-9),
        }

    def _scales(self, module: BackboneModule) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, value in named_scales(module.backbone):
            kind = "eigen" if "alpha" in name else "scale"
            row |= {f"{kind}/{name}/{statistic}": number for statistic, number in statistics(value).items()}
        return row

    def _sphere(self, module: BackboneModule) -> dict[str, float]:
        if not module.backbone.on_sphere:
            return {}
        before, self._directions = self._directions, directions(module.backbone)
        turned = angles(module.backbone, before, self._directions)
        return {"sphere/weight_error": error(module.backbone)} | {f"sphere/angle/{name}": a for name, a in turned.items()}

    def _write_scales(self, trainer: Trainer, module: BackboneModule, step: int) -> None:
        scales = {name: value.float().cpu().contiguous() for name, value in named_scales(module.backbone)}
        if scales and trainer.is_global_zero:
            write_atomically(Path(trainer.default_root_dir) / "scales" / f"step-{step:06d}.safetensors", save(scales))


def step_loss(trainer: Trainer, module: BackboneModule) -> float:
    """The mean loss of the step's batch, of which each process has its share."""
    loss = module.train_loss
    if trainer.world_size > 1:
        loss = trainer.strategy.reduce(loss.clone(), reduce_op="mean")
    return float(loss)
