"""What the trainer iterates over: batches addressed by their number, and a fixed set of held-out windows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ngpt_lab.data.order import WindowOrder
from ngpt_lab.data.windows import Batch, Windows
from ngpt_lab.data.workers import read_ahead
from ngpt_lab.errors import InputError

T = TypeVar("T")
# Training does not end with the data. A loader without a length makes Lightning fetch one batch ahead, and a run
# that goes on from a checkpoint would skip that batch.
ENDLESS = 10**9


@dataclass(frozen=True)
class Rank:
    """One of the processes that share every batch: it reads rows index, index + world_size, ..."""

    index: int = 0
    world_size: int = 1

    def share(self, rows: int, what: str) -> int:
        """How many of `rows` rows are its own; `what` names them where they cannot be shared evenly."""
        if rows % self.world_size:
            raise InputError(f"{what} is {rows}, which {self.world_size} processes cannot share evenly")
        return rows // self.world_size

    def rows(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Its own of the rows of a global batch."""
        return starts[self.index :: self.world_size]


@dataclass
class Numbered(ABC, Generic[T]):
    """Training batches k = 0, 1, ... without end; where it stands is one number.

    Args:
        next: the number of the next batch.
    """

    next: int = field(default=0, kw_only=True)

    @abstractmethod
    def batch(self, k: int) -> T:
        """This rank's rows of batch k."""

    @abstractmethod
    def identity(self, k: int) -> dict[str, Any]:
        """What batch k is made of, over all ranks: JSON from which it can be read again."""

    def __iter__(self) -> Iterator[T]:
        while True:
            self.next += 1
            yield self.batch(self.next - 1)

    def __len__(self) -> int:
        return ENDLESS

    def state_dict(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch a state names."""
        self.next = state["next"]


@dataclass
class NumberedBatches(Numbered[Batch]):
    """Such batches of windows.

    Args:
        num_workers: how many processes read ahead; with 0 this one reads.
    """

    num_workers: int = field(default=0, kw_only=True)

    def __iter__(self) -> Iterator[Batch]:
        return self._read_ahead() if self.num_workers else super().__iter__()

    def _read_ahead(self) -> Iterator[Batch]:
        numbers = range(self.next, self.next + ENDLESS)
        for tokens, targets, documents in read_ahead(numbers, self._arrays, self.num_workers):
            # Counted when it is handed out: what has been read ahead is read again by a run that goes on.
            self.next += 1
            of = None if documents is None else torch.from_numpy(documents)
            yield Batch(torch.from_numpy(tokens), torch.from_numpy(targets), of)

    def _arrays(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None]:
        # From one process to another, arrays go faster than tensors, and through no files in memory that may be short.
        tokens, targets, documents = self.batch(k)
        return tokens.numpy(), targets.numpy(), None if documents is None else documents.numpy()


@dataclass
class WindowLoader(NumberedBatches):
    """Each batch is `batch_size` windows over all ranks, of which it yields its rank's.

    Args:
        windows: the windows of one stream.
        seed: of their order.
        fingerprint: of the corpus, on which the order depends too.
        batch_size: windows in a batch, over all ranks.
        rank: which of the ranks reads.
    """

    windows: Windows
    seed: int
    fingerprint: str
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        self.rank.share(self.batch_size, "--data.batch_size")
        self.order = WindowOrder(self.windows.per_epoch, self.windows.offsets, self.seed, self.fingerprint)

    def starts(self, k: int) -> NDArray[np.int64]:
        """Where the windows of batch k begin, over all ranks."""
        return self.windows.starts(*self.order.choose(k * self.batch_size, self.batch_size))

    def batch(self, k: int) -> Batch:
        """See `NumberedBatches`."""
        return self.windows.batch(self.rank.rows(self.starts(k)))

    def identity(self, k: int) -> dict[str, Any]:
        """See `NumberedBatches`; `starts` are places in the stream."""
        return {
            "batch": k,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "windows": type(self.windows).__name__,
            "seq_len": self.windows.seq_len,
            "starts": self.starts(k).tolist(),
        }


@dataclass
class SwitchingLoader(NumberedBatches):
    """`switch_every` batches of the first stream, as many of the second, of the first again, and so on.

    A stream goes on where it was left, so that coming back to it does not mean reading the same windows again.
    """

    first: NumberedBatches
    second: NumberedBatches
    switch_every: int

    def batch(self, k: int) -> Batch:
        """See `NumberedBatches`."""
        loader, own = self._turn(k)
        return loader.batch(own)

    def identity(self, k: int) -> dict[str, Any]:
        """See `NumberedBatches`; `of` says which text, and what batch of its own it is."""
        loader, own = self._turn(k)
        return {"batch": k, "text": "first" if loader is self.first else "second", "of": loader.identity(own)}

    def _turn(self, k: int) -> tuple[NumberedBatches, int]:
        """Whose batch it is, and its number there."""
        phase, within = divmod(k, self.switch_every)
        rounds, second = divmod(phase, 2)
        return self.second if second else self.first, rounds * self.switch_every + within


@dataclass(frozen=True)
class HeldOutLoader:
    """The windows at `starts`, in order, `batch_size` at a time over all ranks; the last batch may be smaller."""

    windows: Windows
    starts: NDArray[np.int64]
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        # Ranks with more batches than others would wait for them forever.
        self.rank.share(len(self.starts), "the number of held-out windows (--data.eval_windows)")
        self.rank.share(self.batch_size, "--data.batch_size")

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.starts), self.batch_size):
            yield self.windows.batch(self.rank.rows(self.starts[first : first + self.batch_size]))

    def __len__(self) -> int:
        return -(-len(self.starts) // self.batch_size)
