"""The language model, the first of the modules around a backbone."""

import math

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from ngpt_lab.data.windows import IGNORED, Batch
from ngpt_lab.models import Decoder
from ngpt_lab.models.decoder import cross_entropy
from ngpt_lab.training.module import VALIDATION, BackboneModule
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule


class Evaluation:
    """Loss and accuracy of one held-out split, batch by batch.

    No module: the sums stay in float32 also where a run stores the whole module in bfloat16, which has three digits.
    """

    def __init__(self) -> None:
        # NaN counts as NaN: by default it would be left out of the mean ("disable" drops the weights, torchmetrics 1.9).
        self.loss, self.accuracy = (MeanMetric(nan_strategy=math.nan) for _ in range(2))

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits (B, T, V), targets (B, T); those of -100 do not count."""
        counted = targets != IGNORED
        self.loss.to(logits.device).update(cross_entropy(logits, targets), weight=counted.sum())
        self.accuracy.to(logits.device).update((logits.argmax(dim=-1) == targets)[counted].float())

    def compute(self, bytes_per_token: float | None) -> dict[str, Tensor]:
        """The metrics of all batches since the last time; bits per byte where a token's bytes are known."""
        loss = self.loss.compute()
        metrics = {"loss": loss, "perplexity": loss.exp(), "accuracy": self.accuracy.compute()}
        if bytes_per_token is not None:
            metrics["bits_per_byte"] = loss / torch.log(torch.tensor(2.0)) / bytes_per_token
        self.loss.reset()
        self.accuracy.reset()
        return metrics


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
        self.evaluations = {split: Evaluation() for split in (*VALIDATION, "test")}

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
        bytes_per_token = getattr(self.trainer.datamodule, "bytes_per_token", {})  # type: ignore[attr-defined]
        return self.evaluations[split].compute(bytes_per_token.get(split))

    def _evaluate(self, batch: Batch, split: str) -> None:
        self.evaluations[split].update(self.backbone(batch.tokens, documents=batch.documents), batch.targets)
