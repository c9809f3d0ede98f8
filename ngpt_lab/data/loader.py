"""What the trainer iterates over: batches addressed by their number, and a fixed set of held-out windows."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from ngpt_lab.data.order import WindowOrder, cut
from ngpt_lab.errors import InputError

Batch = tuple[Tensor, Tensor]

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

    def rows(self, starts: Tensor) -> Tensor:
        """Its own of the rows of a global batch."""
        return starts[self.index :: self.world_size]


@dataclass
class NumberedBatches(ABC):
    """Training batches k = 0, 1, ... without end; where it stands is one number."""

    next: int = field(default=0, kw_only=True)

    @abstractmethod
    def batch(self, k: int) -> Batch:
        """This rank's rows of batch k."""

    def __iter__(self) -> Iterator[Batch]:
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
class WindowLoader(NumberedBatches):
    """Each batch is `batch_size` windows of one stream over all ranks, of which it yields its rank's."""

    stream: Tensor
    order: WindowOrder
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        self.rank.share(self.batch_size, "--data.batch_size")

    def batch(self, k: int) -> Batch:
        """See `NumberedBatches`."""
        starts = self.order.starts(k * self.batch_size, self.batch_size)
        return cut(self.stream, self.rank.rows(starts), self.order.seq_len)


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
        phase, within = divmod(k, self.switch_every)
        rounds, second = divmod(phase, 2)
        return (self.second if second else self.first).batch(rounds * self.switch_every + within)


@dataclass(frozen=True)
class HeldOutLoader:
    """The windows at `starts`, in order, `batch_size` at a time over all ranks; the last batch may be smaller."""

    stream: Tensor
    starts: Tensor
    seq_len: int
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        # Ranks with more batches than others would wait for them forever.
        self.rank.share(len(self.starts), "the number of held-out windows (--data.eval_windows)")
        self.rank.share(self.batch_size, "--data.batch_size")

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.starts), self.batch_size):
            starts = self.rank.rows(self.starts[first : first + self.batch_size])
            yield cut(self.stream, starts, self.seq_len)

    def __len__(self) -> int:
        return -(-len(self.starts) // self.batch_size)
