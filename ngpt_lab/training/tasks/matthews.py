"""Matthews' correlation of predicted and true classes, which is 0 where nothing is told apart.

That of torchmetrics (1.9) for two classes goes to the share of right labels, less that of wrong ones, where all predictions are
of one class: 0.98 for labels of which one in a hundred is of the other.
"""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix


class MulticlassMatthews(MulticlassConfusionMatrix):
    """Of one class each."""

    def compute(self) -> Tensor:
        """Between -1 and 1."""
        return matthews(super().compute())


class MultilabelMatthews(MultilabelConfusionMatrix):
    """Of every yes or no, all labels together."""

    def compute(self) -> Tensor:
        """Between -1 and 1."""
        return matthews(super().compute().sum(dim=0))


def matthews(table: Tensor) -> Tensor:
    """The correlation in a table of how often each class was true and predicted (n, n); 0 where it is not defined.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).
    """
    counts = table.cpu().double()
    true, predicted, count = counts.sum(dim=1), counts.sum(dim=0), counts.sum()
    shared = count * counts.trace() - true @ predicted
    spread = (count**2 - true @ true) * (count**2 - predicted @ predicted)
    return torch.where(spread > 0, shared / spread.clamp_min(1).sqrt(), 0.0)
