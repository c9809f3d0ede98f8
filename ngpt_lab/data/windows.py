"""How windows are laid over a stream of documents, and what a batch of them holds."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngpt_lab.data.corpora import Stream
from ngpt_lab.data.order import evenly_spaced
from ngpt_lab.nn.labels import IGNORED

# The windows of so many documents are counted together: eight bytes of index for each such block, and microseconds to
# find a document within one.
DOCUMENTS_A_BLOCK = 1024


class Batch(NamedTuple):
    """Windows of tokens.

    Args:
        tokens: ids (B, T) int64.
        targets: the token after each (B, T) int64, -100 where none is to be predicted.
        documents: which document of its window each token belongs to (B, T) int64, counted from 0; None where attention
            crosses documents.
    """

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None = None


class Windows(ABC):
    """The windows of `seq_len` tokens over a stream; a window is named by where it begins in the stream.

    Args:
        stream: the tokens.
        seq_len: tokens in a window, and as many targets.
    """

    def __init__(self, stream: Stream, seq_len: int) -> None:
        self.stream, self.seq_len = stream, seq_len

    @property
    @abstractmethod
    def available(self) -> int:
        """How many there are from the stream's beginning on; 0 where the stream is too short for one."""

    @property
    def per_epoch(self) -> int:
        """How many an epoch of training visits, whatever its offset."""
        return self.available

    @property
    def offsets(self) -> int:
        """An epoch of training may lay its windows from any offset below this."""
        return 1

    @abstractmethod
    def starts(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64] | int = 0) -> NDArray[np.int64]:
        """Where windows `numbers` begin, counted from their offsets on; (len(numbers),)."""

    @abstractmethod
    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """The windows that begin at `starts`."""

    def held_out(self, at_most: int) -> NDArray[np.int64]:
        """Where up to `at_most` windows begin, spread evenly over all there are, without overlap."""
        return self.starts(evenly_spaced(self.available, at_most))


WindowsFactory = Callable[[Stream, int], Windows]


class AcrossDocuments(Windows):
    """End to end over the stream: a window holds whatever documents lie in it, and attention crosses from one to the next."""

    @property
    def available(self) -> int:
        """See `Windows`."""
        return max(len(self.stream) - 1, 0) // self.seq_len

    @property
    def per_epoch(self) -> int:
        """See `Windows`."""
        return max(len(self.stream) // self.seq_len - 1, min(self.available, 1))

    @property
    def offsets(self) -> int:
        """See `Windows`."""
        return min(self.seq_len, len(self.stream) - self.per_epoch * self.seq_len)

    def starts(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64] | int = 0) -> NDArray[np.int64]:
        """See `Windows`."""
        return offsets + self.seq_len * numbers

    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """See `Windows`."""
        return Batch(*cut(self.stream, starts, self.seq_len))


class MaskedDocuments(AcrossDocuments):
    """The windows of `AcrossDocuments`, in which attention stays within each document.

    The first token of a document is nobody's target: nothing that the token before it may see tells of it.
    """

    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """See `Windows`."""
        tokens, targets = cut(self.stream, starts, self.seq_len)
        begins = torch.from_numpy(self.stream.document_starts(starts, self.seq_len + 1))
        changes = begins[:, 1:] != begins[:, :-1]
        documents = torch.nn.functional.pad(changes[:, :-1].cumsum(dim=1), (1, 0))
        return Batch(tokens, targets.masked_fill(changes, IGNORED), documents)


class WithinDocuments(Windows):
    """Each window lies in one document; a document of n tokens, its separator among them, has ceil((n - 1) / seq_len).

    The last one is filled up on the right with token 0, of which nothing is predicted.
    """

    def __init__(self, stream: Stream, seq_len: int) -> None:
        super().__init__(stream, seq_len)
        begins = stream.documents
        blocks = -(-len(begins) // DOCUMENTS_A_BLOCK)
        counts = [0, *(int(self._block(begins, block)[1].sum()) for block in range(blocks))]
        self._before = np.cumsum(counts, dtype=np.int64)

    @property
    def available(self) -> int:
        """See `Windows`."""
        return int(self._before[-1])

    def starts(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64] | int = 0) -> NDArray[np.int64]:
        """See `Windows`; there is no offset but 0."""
        documents = self.stream.documents
        block_of = np.searchsorted(self._before, numbers, side="right") - 1
        starts = np.empty_like(numbers)
        for block in np.unique(block_of):
            begins, counts = self._block(documents, block)
            chosen = block_of == block
            within, ends = numbers[chosen] - self._before[block], counts.cumsum()
            document = np.searchsorted(ends, within, side="right")
            starts[chosen] = begins[document] + self.seq_len * (within - ends[document] + counts[document])
        return starts

    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """See `Windows`."""
        length = min(self.seq_len + 1, len(self.stream))
        # A window that reaches beyond the stream is read from before its start, and moved to the left.
        reads = np.minimum(starts, len(self.stream) - length)
        tokens, begins = self.stream.windows(reads, length), self.stream.document_starts(reads, length)
        if length <= self.seq_len or (reads < starts).any():
            at = np.arange(self.seq_len + 1) + (starts - reads)[:, None]
            # What lies beyond the stream belongs to no document.
            begins = np.where(at < length, np.take_along_axis(begins, np.minimum(at, length - 1), axis=1), -1)
            tokens = np.take_along_axis(tokens, np.minimum(at, length - 1), axis=1)
        other, windows = torch.from_numpy(begins != begins[:, :1]), torch.from_numpy(tokens)
        return Batch(windows[:, :-1].masked_fill(other[:, :-1], 0), windows[:, 1:].masked_fill(other[:, 1:], IGNORED))

    def _block(self, documents: NDArray[np.int64], block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the documents of a block begin, and how many windows each has."""
        first, last = block * DOCUMENTS_A_BLOCK, (block + 1) * DOCUMENTS_A_BLOCK
        edges = np.asarray(documents[first : last + 1])
        if last >= len(documents):
            edges = np.append(edges, len(self.stream))
        return edges[:-1], (np.diff(edges) + self.seq_len - 2) // self.seq_len


def cut(stream: Stream, starts: NDArray[np.int64], seq_len: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, both (len(starts), seq_len) int64; a target is the token after."""
    windows = torch.from_numpy(stream.windows(starts, seq_len + 1))
    # Not `contiguous`: it makes no copy of one row, whose tokens and targets would share their memory.
    dense = torch.contiguous_format
    return windows[:, :-1].clone(memory_format=dense), windows[:, 1:].clone(memory_format=dense)
