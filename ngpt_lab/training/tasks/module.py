"""What the modules of all tasks share."""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.machine import keep_compiled
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.training.evaluation import Evaluation
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule

SPLITS = ("val", "test")


class Texts(Protocol):
    """What every task's batch has: ids (B, T), and a mask (B, T) of 1 for a token and 0 for padding."""

    @property
    def tokens(self) -> Tensor:
        """Ids."""

    @property
    def mask(self) -> Tensor:
        """1 or 0."""


class TaskModule(BackboneModule):
    """A backbone with a task's head in the place of the language model's.

    The head is trained like everything else, and free of the sphere: NormalizeWeights keeps the backbone's matrices alone.

    Args:
        backbone: the decoder, whose own head is taken off.
        head: the task's.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
        activation_checkpointing: which blocks compute activations again in the backward pass; by default none.
    """

    pads = True

    def __init__(
        self,
        backbone: Decoder,
        head: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, compile, activation_checkpointing)
        backbone.take_head()
        self.head = head
        self.evaluations: dict[str, Evaluation] = {}
        self._features = backbone.features

    def compile_now(self) -> None:
        """See `BackboneModule`."""
        keep_compiled()
        self._features = torch.compile(self.backbone.features, fullgraph=True, dynamic=True)

    def features(self, batch: Texts) -> Tensor:
        """The final stream (B, T, C); positions count from a row's first token, wherever its padding stands."""
        positions = (batch.mask.cumsum(dim=1) - 1).clamp_min(0)
        return self._features(batch.tokens, positions=positions, attention_mask=batch.mask)

    def measured(self, split: str) -> dict[str, Tensor]:
        """See `BackboneModule`."""
        return self.evaluations[split].compute()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The mean loss of a batch."""
        return self.keep_loss(self.loss(batch))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count a batch towards the validation metrics."""
        self.evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count a batch towards the test metrics."""
        self.evaluate(batch, "test")

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch."""

    @abstractmethod
    def evaluate(self, batch: Any, split: str) -> None:
        """Count a batch towards a split's metrics."""

    def expect_of_the_data(self, **settings: Any) -> None:
        """Refuse data that says otherwise than the model's settings.

        Raises:
            InputError: names the setting and what to set it to.
        """
        data = getattr(self.trainer, "datamodule", None)
        for name, ours in settings.items():
            theirs = getattr(data, name, ours)
            if theirs != ours:
                raise InputError(f"{name} is {ours}, but that of the data is {theirs}: set model.init_args.{name} to {theirs}")
