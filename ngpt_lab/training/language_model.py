"""The language model, the first of the modules around a backbone."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ngpt_lab.data.windows import Batch
from ngpt_lab.models import Decoder
from ngpt_lab.models.decoder import cross_entropy
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.training.evaluation import Evaluation
from ngpt_lab.training.module import VALIDATION, BackboneModule
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule


class TokenEvaluation(Evaluation):
    """Loss and accuracy of the next token."""

    def __init__(self) -> None:
        super().__init__({"accuracy": MeanMetric(nan_strategy=math.nan)})

    def count(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits (B, T, V), targets (B, T); those of -100 do not count."""
        counted = targets != IGNORED
        self.update(cross_entropy(logits, targets), counted.sum())
        right = logits.argmax(dim=-1) == targets
        self.metrics["accuracy"].to(logits.device).update(right[counted].float())


class LanguageModel(BackboneModule):
    """Next-token prediction with any backbone.

    Args:
        backbone: the decoder.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
    """

    def __init__(self, backbone: Decoder, optimizer: OptimizerFactory, schedule: Schedule, compile: bool = False) -> None:
        super().__init__(backbone, optimizer, schedule, compile)
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
        logits = self.backbone(batch.tokens, documents=batch.documents)
        return {"loss": torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), batch.targets, reduction="none")}

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
        self.evaluations[split].count(self.backbone(batch.tokens, documents=batch.documents), batch.targets)
