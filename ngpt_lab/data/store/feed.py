"""Tokens in runs of any length, out of batches of pieces."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.store.encoding import Encoded
from ngpt_lab.data.store.lines import AT_MOST, sample
from ngpt_lab.data.store.progress import SplitProgress


class Feed:
    """The tokens of a split from where its progress is.

    Args:
        batches: the pieces from `progress.piece` on.
        progress: where to begin; it moves with what is taken.
        samples: whether line starts are a sample of all, which stays small.
    """

    def __init__(self, batches: Iterator[Encoded], progress: SplitProgress, samples: bool) -> None:
        self._batches, self._progress, self._samples = batches, progress, samples
        self._first_piece, self._bytes_before, self._at = progress.piece, progress.size, progress.offset
        self._batch: Encoded | None = next(batches, None)
        self._lines = set(progress.lines)
        self._look_at_lines()

    def take(self, at_most: int) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
        """Some of the next tokens, and which of them begin documents; None at the end of the split."""
        while self._batch is not None and self._at == len(self._batch.tokens):
            self._next_batch(self._batch)
        if (batch := self._batch) is None:
            return None
        first, self._at = self._at, min(self._at + at_most, len(batch.tokens))
        low, high = np.searchsorted(batch.document_ends, [first, self._at], "right")
        begins = batch.document_ends[low:high] - first
        if self._progress.begins:
            begins = np.insert(begins, 0, 0)
        self._progress.begins = bool(len(begins)) and bool(begins[-1] == self._at - first)
        return batch.tokens[first : self._at], begins[: len(begins) - self._progress.begins]

    def settle(self) -> None:
        """Say in the progress where the next token is."""
        progress = self._progress
        if (batch := self._batch) is None:
            progress.piece, progress.offset, progress.size = self._first_piece, 0, self._bytes_before
        else:
            whole = int(np.searchsorted(batch.piece_ends, self._at, "right"))
            progress.piece = self._first_piece + whole
            progress.offset = self._at - (int(batch.piece_ends[whole - 1]) if whole else 0)
            progress.size = self._bytes_before + (int(batch.byte_ends[whole - 1]) if whole else 0)
        progress.lines = sample(self._lines) if self._samples else frozenset(self._lines)

    @property
    def bytes(self) -> int:
        """Bytes of the batches that were taken whole."""
        return self._bytes_before

    def _next_batch(self, batch: Encoded) -> None:
        self._first_piece += len(batch.piece_ends)
        self._bytes_before += int(batch.byte_ends[-1])
        self._batch, self._at = next(self._batches, None), 0
        self._look_at_lines()

    def _look_at_lines(self) -> None:
        if self._batch is not None:
            self._lines |= self._batch.lines
            if self._samples and len(self._lines) > 4 * AT_MOST:
                self._lines = set(sample(self._lines))
