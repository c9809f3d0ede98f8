"""What the held-out batches of a split come to."""

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

# They are not defined where predictions or labels do not vary.
CORRELATIONS = {"pearson", "spearman"}


class Evaluation:
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
        on_device(self.loss, loss.device).update(loss, weight=count)

    def compare(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch's predictions for every metric."""
        for metric in self.metrics.values():
            on_device(metric, predictions.device).update(predictions, labels)

    def compute(self) -> dict[str, Tensor]:
        """What all batches since the last time came to.

        A correlation with what does not vary is taken for 0. Where the loss is not finite nothing is: scores that are no
        numbers still have a largest one, which may happen to be right.
        """
        loss = self.loss.compute()
        self.loss.reset()
        named = {"loss": loss}
        for name, metric in self.metrics.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of what does not vary
                value = metric.compute()
            metric.reset()
            several = value if isinstance(value, dict) else {name: value}
            named |= {key: mean(key, torch.as_tensor(one, dtype=torch.float32), loss) for key, one in several.items()}
        return named


def on_device(metric: Metric, device: torch.device) -> Metric:
    """A metric on a device, still in float32: `to` alone makes it the default dtype, bfloat16 in a run that is stored so."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        return metric.to(device)
    finally:
        torch.set_default_dtype(before)


def mean(name: str, values: Tensor, loss: Tensor) -> Tensor:
    """A metric over all labels, given its value for each; NaN where the loss is not finite."""
    if not loss.isfinite():
        return torch.full_like(loss, torch.nan)
    return (values.nan_to_num(nan=0.0) if name in CORRELATIONS else values).mean()
