"""What every LightningModule around a backbone shares."""

import shutil
from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.machine import keep_compiled
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.nn.shards import local
from ngpt_lab.training.attention import settle_attention
from ngpt_lab.training.checkpoints import check_shapes
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.parallel.birth import Unborn
from ngpt_lab.training.parallel.pieces import total_norm
from ngpt_lab.training.schedules import Schedule

# What a data module's validation loaders are logged as, in their order.
VALIDATION = ("val", "val_other")


class BackboneModule(LightningModule, ABC):
    """Training of a decoder: optimizer, schedule, clipping, compilation.

    `grad_norm` and `clipped` describe the latest optimizer step; `latest_row` holds the latest logged training metrics,
    `evaluated` the latest validation and test metrics, `validated_at` the step of the validation. `veto` is asked before each
    step, when its loss and gradient norm are known; where it says so, weights and optimizer state stay as they are. A backbone
    that was built on the meta device is made when the strategy distributes it, from `unborn`; then `begin` is called.

    Where windows ignore some targets (MaskedDocuments, WithinDocuments), the loss of each micro-batch, and of each process's
    share of it, is the mean over its own targets; a step averages these means, so that a target counts for more where there
    are fewer beside it.
    """

    # Whether rows of a batch are filled up with positions that hold no token.
    pads = False

    def __init__(
        self,
        backbone: Decoder,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        super().__init__()
        if activation_checkpointing is not None:
            backbone.carry_out = activation_checkpointing
        self.backbone, self.optimizer_factory, self.schedule, self.compile_backbone = backbone, optimizer, schedule, compile
        self.grad_norm = torch.tensor(0.0)
        self.clipped = torch.tensor(False)
        self.latest_row: dict[str, float] = {}
        self.evaluated: dict[str, float] = {}
        self.validated_at = -1
        self._distributed = False
        self._losses: list[Tensor] = []
        self._losses_of = -1
        self.veto: Callable[[], bool] = lambda: False
        self.begin: Callable[[], None] = lambda: None
        self.unborn: Unborn | None = vars(backbone).pop("unborn", None)
        self.attention: dict[str, str] = {}

    def setup(self, stage: str) -> None:
        """Check what the data and the machine must offer, settle how attention is computed, and compile where asked."""
        data = getattr(self.trainer, "datamodule", None)
        vocab_size = getattr(data, "vocab_size", 0)
        if vocab_size > self.backbone.dims.vocab_size:
            raise InputError(
                f"dims.vocab_size is {self.backbone.dims.vocab_size}, but the data has {vocab_size} token ids: "
                f"set model.init_args.backbone.init_args.dims.vocab_size to {vocab_size}"
            )
        refuse_what_is_not_supported(self.trainer)
        device, precision = self.trainer.strategy.root_device, str(self.trainer.precision)
        self.attention = settle_attention(self, device, precision, data, training=stage == "fit")
        if self.compile_backbone:
            require_compiler(self.trainer.strategy.root_device)
            if not hasattr(self.trainer.strategy, "distribute"):  # which compiles what it has distributed
                self.compile_now()

    def configure_model(self) -> None:
        """Let a strategy that does so give every process its piece of the model, once."""
        distribute = getattr(self.trainer.strategy, "distribute", None)
        if distribute is not None and not self._distributed:
            self._distributed = True
            distribute(self)
        begin, self.begin = self.begin, lambda: None
        begin()

    def compile_now(self) -> None:
        """Compile what a step calls of the backbone."""
        keep_compiled()
        self.backbone.compile(fullgraph=True)

    def on_fit_start(self) -> None:
        """Refuse to train a backbone that lives on the sphere where nothing keeps it there."""
        asked = [c.every_n_steps for c in self.trainer.callbacks if isinstance(c, NormalizeWeights)]  # type: ignore[attr-defined]
        if self.backbone.on_sphere and (not asked or asked[0] is None):
            raise InputError(
                f"{type(self.backbone).__name__} needs NormalizeWeights: add the callback, or set "
                "normalize_weights.every_n_steps to 1 (0 switches it off on purpose)"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another model before anything is loaded."""
        check_shapes(self, checkpoint, self.trainer.ckpt_path or "the checkpoint")

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, over all micro-batches."""
        return int(self.trainer.datamodule.tokens_per_batch) * self.trainer.accumulate_grad_batches  # type: ignore[attr-defined]

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer, and the schedule as a function of the optimizer step."""
        run_steps = self.trainer.max_steps
        if run_steps < 1:
            raise InputError("trainer.max_steps is not set: a schedule needs the length of the run")
        tokens_per_step = self.tokens_per_step if self.schedule.unit == "tokens" else 1
        optimizer = self.optimizer_factory.build(self)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, run_steps, tokens_per_step)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the total norm, and keep that norm: one pass over the gradients serves both; or leave the step out."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.grad_norm = total_norm(gradients)
        self.clipped = torch.tensor(False)
        if self.veto():
            for parameter in self.parameters():
                parameter.grad = None
        elif gradient_clip_val:  # Lightning's 0 is no clipping
            self.clipped = self.grad_norm > gradient_clip_val
            factor = (gradient_clip_val / (self.grad_norm + 1e-6)).clamp_max(1.0)
            torch._foreach_mul_([local(gradient) for gradient in gradients], factor)

    def keep_loss(self, loss: Tensor) -> Tensor:
        """Remember a micro-batch's loss for `train_loss`."""
        if self._losses_of != self.trainer.global_step:
            self._losses_of = self.trainer.global_step
            self._losses.clear()
        self._losses.append(loss.detach())
        return loss

    @property
    def micro_batches(self) -> int:
        """How many micro-batches of the latest step there were so far."""
        return len(self._losses)

    @property
    def train_loss(self) -> Tensor:
        """The mean loss of the latest step's micro-batches."""
        return torch.stack(self._losses).mean()

    def measured(self, split: str) -> dict[str, Tensor]:
        """What the batches of a held-out split came to since the last time, by the metrics' names; by default nothing."""
        return {}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        loaders = self.trainer.val_dataloaders
        self._log_evaluation(*VALIDATION[: len(loaders) if isinstance(loaders, list) else 1])
        self.validated_at = self.trainer.global_step

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_evaluation("test")

    def _log_evaluation(self, *splits: str) -> None:
        named = {f"{split}/{name}": value for split in splits for name, value in self.measured(split).items()}
        # Lightning would stamp the row with the step before; ours count the steps done.
        self.log_dict(named, logger=False)
        for logger in self.loggers:
            logger.log_metrics({name: float(value) for name, value in named.items()}, step=self.trainer.global_step)
        self.evaluated |= {name: float(value) for name, value in named.items()}


def refuse_what_is_not_supported(trainer: Trainer) -> None:
    """Refuse settings of the trainer under which a step would not do what they say.

    Raises:
        InputError: names the setting.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy) and not hasattr(trainer.strategy, "distribute"):
        raise InputError("trainer.strategy is none of those that this model knows: choose auto, ddp, fsdp2, tp or fsdp2+tp")
    if trainer.gradient_clip_algorithm not in (None, "norm"):
        raise InputError("trainer.gradient_clip_algorithm is 'value': gradients are clipped by their total norm, so set 'norm'")
    if trainer.precision in ("16-mixed", "16-true"):
        why = "whose gradients are scaled when they are clipped" if "mixed" in trainer.precision else "too narrow for gradients"
        raise InputError(f"trainer.precision is '{trainer.precision}', {why}: use 'bf16-mixed'")


def require_compiler(device: torch.device) -> None:
    """Refuse compilation where the machine has no compiler for `device`.

    Raises:
        InputError: there is none.
    """
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise InputError(
            "compile is true, but this machine has no C++ compiler (g++ or clang++): install one, or set it to false"
        )
