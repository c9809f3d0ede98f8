"""What the task modules are trained on: examples side by side, padded on the right."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Lengths are rounded up to it: few shapes for a compiler, and the ones that matrix units like.
MULTIPLE = 8


class TextBatch(NamedTuple):
    """Texts and what they are labelled with.

    Args:
        tokens: ids (B, T) int64, padded on the right.
        mask: (B, T) int64, 1 for a token and 0 for padding.
        labels: of sequences (B,) int64 for one class each, or (B, n) float32 for several classes (0 or 1 each) and for numbers;
            of tokens (B, T) int64, -100 where a token has none.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor


class SpanBatch(NamedTuple):
    """Windows that hold a question and a part of its context.

    All windows of a question stand in one batch of a held-out split, next to each other.

    Args:
        tokens: ids (B, T) int64: the question, a separator, the part; padded on the right.
        mask: (B, T) int64, 1 for a token and 0 for padding.
        starts: where the answer's first token stands (B,) int64; 0 where the part does not hold the answer.
        ends: where its last token stands (B,) int64; 0 where the part does not hold the answer.
        index: the window's number (B,) int64, which the data module's `answer`, `references` and `question` take.
        context: (B, T) bool, where an answer may begin and end: the part of the context.
    """

    tokens: Tensor
    mask: Tensor
    starts: Tensor
    ends: Tensor
    index: Tensor  # type: ignore[assignment]  # no use for the method of tuples
    context: Tensor


def padded(rows: Sequence[NDArray[Any]], value: int) -> Tensor:
    """Rows of different lengths as one (B, T) int64, filled up on the right with `value`."""
    longest = max(len(row) for row in rows)
    filled = np.full((len(rows), -(-longest // MULTIPLE) * MULTIPLE), value, np.int64)
    for line, row in zip(filled, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(filled)


def mask_of(rows: Sequence[NDArray[Any]]) -> Tensor:
    """1 where `padded` has a token of its rows and 0 where it fills up, (B, T) int64."""
    return padded([np.ones(len(row), np.int64) for row in rows], 0)
