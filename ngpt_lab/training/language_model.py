"""The language model, the first of the modules around a backbone."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ngpt_lab.data.windows import Batch
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.nn.next_token import token_scores
from ngpt_lab.training.evaluation import Evaluation, on_device
from ngpt_lab.training.module import VALIDATION, BackboneModule
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule


class TokenEvaluation(Evaluation):
    """Loss and accuracy of the next token."""

    def __init__(self) -> None:
        super().__init__({"accuracy": MeanMetric(nan_strategy=math.nan)})

    def count(self, losses: Tensor, right: Tensor, targets: Tensor) -> None:
        """Count a batch, each (B, T): losses, whether the likeliest token is right, targets; those of -100 do not count."""
        counted = targets != IGNORED
        self.update(losses.sum() / counted.sum().clamp_min(1), counted.sum())
        on_device(self.metrics["accuracy"], losses.device).update(right[counted].float())


class LanguageModel(BackboneModule):
    """Next-token prediction with any backbone.

    Args:
        backbone: the decoder.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
        activation_checkpointing: which blocks compute activations again in the backward pass; by default none.
    """

    def __init__(
        self,
        backbone: Decoder,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, schedule, compile, activation_checkpointing)
        self.evaluations = {split: TokenEvaluation() for split in (*VALIDATION, "test")}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of a batch, in nats."""
        return self.keep_loss(self.backbone(batch.tokens, batch.targets, documents=batch.documents))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count a batch towards the validation metrics of its loader."""
        self._evaluate(batch, VALIDATION[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch towards the test metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The `loss` of every token, (B, T) in nats; 0 where none is to be predicted."""
        return {"loss": self._scores(batch)[0]}

    def measured(self, split: str) -> dict[str, Tensor]:
        """See `BackboneModule`."""
        named = self.evaluations[split].compute()
        loss = named["loss"]
        named = {"loss": loss, "perplexity": loss.exp(), **named}
        bytes_per_token = getattr(self.trainer.datamodule, "bytes_per_token", {}).get(split)  # type: ignore[attr-defined]
        if bytes_per_token is not None:
            named["bits_per_byte"] = loss / torch.log(torch.tensor(2.0)) / bytes_per_token
        return named

    def _evaluate(self, batch: Batch, split: str) -> None:
        self.evaluations[split].count(*self._scores(batch), batch.targets)

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.backbone(batch.tokens, batch.targets, documents=batch.documents, measure=token_scores)
