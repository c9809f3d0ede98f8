"""Entities in tagged tokens, and how many are found (CoNLL-2003's measure)."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from ngpt_lab.nn.labels import IGNORED

OUTSIDE = "O"
Span = tuple[int, int, str]


def are_spans(names: Iterable[str]) -> bool:
    """Whether label names are tags of entities: O, and B-TYPE or I-TYPE."""
    names = set(names)
    return len(names) > 1 and all(name == OUTSIDE or name[:2] in ("B-", "I-") for name in names)


def spans(tags: Sequence[str]) -> set[Span]:
    """The entities of a sequence: first token, last token and type.

    One begins at every B, and at an I after O, after another type or at the very beginning: so it reads both IOB1 and IOB2,
    as CoNLL's own script does.
    """
    found: set[Span] = set()
    first, kind = 0, None
    for at, tag in enumerate([*tags, OUTSIDE]):
        of = None if tag == OUTSIDE else tag[2:]
        if kind is not None and (of != kind or tag.startswith("B-")):
            found.add((first, at - 1, kind))
            kind = None
        if kind is None and of is not None:
            first, kind = at, of
    return found


class SpanF1(Metric):
    """Precision, recall and F1 of entities; one counts as found where both its ends and its type are right.

    Args:
        names: the tags, in the order of their numbers.
    """

    right: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        for count in ("right", "predicted", "true"):
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count the entities of predicted tags (B, T), given the true ones (B, T); tokens labelled -100 are left out."""
        for predicted, true in zip(predictions, labels, strict=True):
            counts = true != IGNORED
            found, there = self._spans(predicted[counts]), self._spans(true[counts])
            self.right += len(found & there)
            self.predicted += len(found)
            self.true += len(there)

    def compute(self) -> dict[str, Tensor]:
        """All three, 0 where nothing is found or there is nothing to find."""
        precision = self.right / self.predicted.clamp_min(1)
        recall = self.right / self.true.clamp_min(1)
        f1 = 2 * self.right / (self.predicted + self.true).clamp_min(1)
        return {"span_precision": precision, "span_recall": recall, "span_f1": f1}

    def _spans(self, tags: Tensor) -> set[Span]:
        return spans([self.names[tag] for tag in tags.tolist()])
