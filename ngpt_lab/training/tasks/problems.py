"""What the labels of sequences are: one class each, any number of classes, or numbers."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from ngpt_lab.errors import InputError
from ngpt_lab.nn.heads import class_loss, multi_label_loss, regression_loss
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.sphere import widen
from ngpt_lab.training.tasks.matthews import MulticlassMatthews, MultilabelMatthews


class Problem(ABC):
    """What a sequence's labels are, and what follows for the loss and the metrics.

    Args:
        num_labels: how many scores a sequence has.

    Attributes:
        name: in Hugging Face's words.
        least: so many scores there must be.
    """

    name: str
    least = 2

    def __init__(self, num_labels: int) -> None:
        if num_labels < self.least:
            raise InputError(f"num_labels is {num_labels}: {self.name} needs at least {self.least}")
        self.num_labels = num_labels

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of scores (B, n)."""

    @abstractmethod
    def predictions(self, logits: Tensor) -> Tensor:
        """What scores (B, n) say, as the metrics take it."""

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """Fresh metrics by their names."""


class SingleLabel(Problem):
    """One class each: labels (B,)."""

    name = "single_label_classification"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, in nats."""
        return class_loss(logits, labels)

    def predictions(self, logits: Tensor) -> Tensor:
        """The class of the largest score (B,)."""
        return logits.argmax(dim=-1)

    def metrics(self) -> dict[str, Metric]:
        """Accuracy, F1 and MCC."""
        return class_metrics(self.num_labels)


class MultiLabel(Problem):
    """Any number of classes each: labels (B, n) of 0 and 1."""

    name = "multi_label_classification"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy, in nats."""
        return multi_label_loss(logits, labels)

    def predictions(self, logits: Tensor) -> Tensor:
        """1 where a score is above 0, which is a probability above one half (B, n)."""
        return (logits > 0).long()

    def metrics(self) -> dict[str, Metric]:
        """Accuracy, exact match, F1 and MCC."""
        count = self.num_labels
        return {
            "accuracy": MultilabelAccuracy(count, average="micro"),
            "exact_match": MultilabelExactMatch(count),
            "f1": MultilabelF1Score(count, average="macro"),
            "mcc": MultilabelMatthews(count),
        }


class Regression(Problem):
    """Numbers: labels (B, n), or (B,) where n is 1."""

    name = "regression"
    least = 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error."""
        return regression_loss(logits, labels)

    def predictions(self, logits: Tensor) -> Tensor:
        """The scores themselves, (B,) where there is one."""
        return widen(logits).squeeze(-1)

    def metrics(self) -> dict[str, Metric]:
        """Mean squared error and both correlations."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all targets and predictions")
            spearman = SpearmanCorrCoef(self.num_labels)
        mse, pearson = MeanSquaredError(num_outputs=self.num_labels), PearsonCorrCoef(self.num_labels)
        return {"mse": mse, "pearson": pearson, "spearman": spearman}


ProblemFactory = Callable[[int], Problem]


def class_metrics(num_labels: int) -> dict[str, Metric]:
    """Accuracy, F1 as the mean over classes, and MCC of one class each; -100 is left out."""
    return {
        "accuracy": MulticlassAccuracy(num_labels, average="micro", ignore_index=IGNORED),
        "f1": MulticlassF1Score(num_labels, average="macro", ignore_index=IGNORED),
        "mcc": MulticlassMatthews(num_labels, ignore_index=IGNORED),
    }
