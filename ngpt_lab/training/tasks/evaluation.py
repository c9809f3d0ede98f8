"""What a task's held-out batches come to."""

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

# Every key that a row of a task may have beside those of training; {split} is val or test.
TASK_METRICS = {
    "{split}/loss": "mean loss, in nats where it is a cross-entropy",
    "{split}/accuracy": "share of labels that are right: of sequences, of tokens, or of every yes or no",
    "{split}/f1": "F1, the mean over classes; of answers, that of their words (SQuAD's)",
    "{split}/mcc": "Matthews correlation coefficient",
    "{split}/exact_match": "share of sequences with all labels right, or of answers that are word for word a true one",
    "{split}/mse": "mean squared error",
    "{split}/pearson": "Pearson correlation of predictions and labels, the mean over labels",
    "{split}/spearman": "Spearman correlation of predictions and labels, the mean over labels",
    "{split}/span_precision": "share of the entities found that are right in both ends and in type (CoNLL's)",
    "{split}/span_recall": "share of the true entities that are found so",
    "{split}/span_f1": "the harmonic mean of both",
}


class TaskEvaluation:
    """Loss and metrics of one held-out split, batch by batch.

    No module: the sums stay in float32 also where a run stores the whole module in bfloat16, which has three digits.

    Args:
        metrics: by name; one that gives several numbers at once names them itself.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        # NaN counts as NaN: by default it would be left out of the mean ("disable" drops the weights, torchmetrics 1.9).
        self.loss = MeanMetric(nan_strategy=math.nan)
        self.metrics = dict(metrics)

    def update(self, loss: Tensor, count: Tensor | int) -> None:
        """Count a batch's mean loss over `count` labels."""
        self.loss.to(loss.device).update(loss, weight=count)

    def compare(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch's predictions for every metric."""
        for metric in self.metrics.values():
            metric.to(predictions.device).update(predictions, labels)

    def compute(self) -> dict[str, Tensor]:
        """What all batches since the last time came to. A correlation with what does not vary is taken for 0."""
        named = {"loss": self.loss.compute()}
        self.loss.reset()
        for name, metric in self.metrics.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of what does not vary
                value = metric.compute()
            metric.reset()
            several = value if isinstance(value, dict) else {name: value}
            named |= {key: torch.nan_to_num(torch.as_tensor(one, dtype=torch.float32).mean()) for key, one in several.items()}
        return named
