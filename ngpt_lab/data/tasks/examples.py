"""One split's examples, in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ngpt_lab.data.tasks.batches import SpanBatch, TextBatch, mask_of, padded
from ngpt_lab.nn.labels import IGNORED


class Examples(ABC):
    """The examples of a split: training takes any of them, evaluation all that belong to one thing that is asked.

    Attributes:
        too_long: how many texts are longer than an example may be.
    """

    too_long: int

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def batch(self, numbers: NDArray[np.int64]) -> TextBatch | SpanBatch:
        """Those of these numbers, side by side."""

    @abstractmethod
    def parts(self) -> Iterable[NDArray[Any]]:
        """Everything that batches are made of."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens of all examples."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many examples belong to each thing that is asked, in their order."""
        return np.ones(len(self), np.int64)

    @property
    def digest(self) -> str:
        """SHA-256 of them all."""
        hashed = hashlib.sha256()
        for part in self.parts():
            hashed.update(f"{part.dtype.str} {part.shape} ".encode() + part.tobytes())
        return hashed.hexdigest()


@dataclass(frozen=True)
class LabelledTexts(Examples):
    """Texts with a label each, or with one for each token.

    Args:
        texts: the tokens of each.
        labels: an array of whole texts' labels, one row each; or each text's array of its tokens' labels.
        pad: the token that fills up.
        too_long: see `Examples`.
    """

    texts: Sequence[NDArray[Any]]
    labels: NDArray[Any] | Sequence[NDArray[np.int64]]
    pad: int
    too_long: int

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, numbers: NDArray[np.int64]) -> TextBatch:
        """See `Examples`."""
        texts = [self.texts[number] for number in numbers]
        if isinstance(self.labels, np.ndarray):
            labels = torch.from_numpy(self.labels[numbers])
        else:
            labels = padded([self.labels[number] for number in numbers], IGNORED)
        return TextBatch(padded(texts, self.pad), mask_of(texts), labels)

    def parts(self) -> Iterable[NDArray[Any]]:
        """See `Examples`."""
        yield from self.texts
        yield from [self.labels] if isinstance(self.labels, np.ndarray) else self.labels

    @property
    def tokens(self) -> int:
        """See `Examples`."""
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class AskedContext:
    """A question about a context, of which each window sees a part.

    Args:
        head: the tokens of the question and the separator.
        body: the tokens of the context.
        starts: where each of them begins in the context's text, in characters.
        ends: where each of them ends.
        answer: the first and the last token of the answer, counted in the context.
        text: the context.
        references: the true answers.
    """

    head: NDArray[Any]
    body: NDArray[Any]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    answer: tuple[int, int]
    text: str
    references: list[str]


@dataclass(frozen=True)
class Windows(Examples):
    """Windows over the contexts of questions.

    Args:
        asked: the questions.
        windows: (N, 3): of each window its question, the first of the context's tokens in it, and the one after its last.
        first: the number of the first window: no two splits share a number.
        pad: the token that fills up.
        too_long: see `Examples`.
    """

    asked: Sequence[AskedContext]
    windows: NDArray[np.int64]
    first: int
    pad: int
    too_long: int

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, numbers: NDArray[np.int64]) -> SpanBatch:
        """See `Examples`."""
        rows = [self._row(number) for number in numbers]
        texts = [tokens for tokens, _, _ in rows]
        spans = torch.tensor([span for _, span, _ in rows])
        context = padded([inside for _, _, inside in rows], 0).bool()
        index = torch.from_numpy(numbers + self.first)
        return SpanBatch(padded(texts, self.pad), mask_of(texts), spans[:, 0], spans[:, 1], index, context)

    def parts(self) -> Iterable[NDArray[Any]]:
        """See `Examples`."""
        for asked in self.asked:
            yield from (asked.head, asked.body, np.array(asked.answer))
        yield self.windows

    @property
    def tokens(self) -> int:
        """See `Examples`."""
        return int(np.sum(self.windows[:, 2] - self.windows[:, 1])) + sum(
            len(asked.head) * int(size) for asked, size in zip(self.asked, self.sizes, strict=True)
        )

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The windows of each question."""
        return np.bincount(self.windows[:, 0], minlength=len(self.asked))

    def text(self, index: int, start: int, end: int) -> str:
        """The text from token `start` to token `end` of window `index`; empty where they are none of its context."""
        question, first, after = self.windows[index - self.first]
        asked = self.asked[question]
        start, end = (place - len(asked.head) + first for place in (start, end))
        return asked.text[asked.starts[start] : asked.ends[end]].strip() if first <= start <= end < after else ""

    def question(self, index: int) -> int:
        """The question of window `index`."""
        return int(self.windows[index - self.first, 0])

    def _row(self, number: int) -> tuple[NDArray[Any], tuple[int, int], NDArray[np.int64]]:
        """A window's tokens, where its answer starts and ends, and which tokens are of the context."""
        question, first, after = self.windows[number]
        asked = self.asked[question]
        tokens = np.concatenate((asked.head, asked.body[first:after]))
        start, end = asked.answer
        inside = first <= start and end < after
        span = (int(start - first) + len(asked.head), int(end - first) + len(asked.head)) if inside else (0, 0)
        return tokens, span, (np.arange(len(tokens)) >= len(asked.head)).astype(np.int64)
