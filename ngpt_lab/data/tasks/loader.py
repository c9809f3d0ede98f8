"""What the trainer iterates over: batches of examples addressed by their number, and all that is held out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.loader import Numbered, Rank
from ngpt_lab.data.order import WindowOrder, evenly_spaced
from ngpt_lab.data.tasks.batches import SpanBatch, TextBatch
from ngpt_lab.data.tasks.examples import Examples


@dataclass
class ExampleLoader(Numbered[TextBatch | SpanBatch]):
    """Training batches of `batch_size` examples over all ranks; an epoch visits each once.

    Args:
        examples: of the training split.
        seed: of their order.
        fingerprint: of the data, on which the order depends too.
        batch_size: examples in a batch, over all ranks.
        rank: which of the ranks reads.
    """

    examples: Examples
    seed: int
    fingerprint: str
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        self.rank.share(self.batch_size, "--data.batch_size")
        self.order = WindowOrder(len(self.examples), 1, self.seed, self.fingerprint)

    def numbers(self, k: int) -> NDArray[np.int64]:
        """The numbers of batch k's examples, over all ranks."""
        return self.order.choose(k * self.batch_size, self.batch_size)[0]

    def batch(self, k: int) -> TextBatch | SpanBatch:
        """See `Numbered`."""
        return self.examples.batch(self.rank.rows(self.numbers(k)))

    def identity(self, k: int) -> dict[str, Any]:
        """See `Numbered`."""
        return {"batch": k, "seed": self.seed, "fingerprint": self.fingerprint, "examples": self.numbers(k).tolist()}


@dataclass(frozen=True)
class HeldOutExamples:
    """What is asked of a held-out split, in order: at most `batch_size` examples at a time over all ranks.

    The examples of one thing that is asked, as the windows of a question, stay together, however many they are; all
    ranks have equally many batches.

    Args:
        examples: of the split.
        at_most: so many things are asked, spread evenly; None for all.
        batch_size: examples in a batch, over all ranks.
        rank: which of the ranks reads.
    """

    examples: Examples
    at_most: int | None
    batch_size: int
    rank: Rank = field(default_factory=Rank)

    def __post_init__(self) -> None:
        # Ranks with more batches than others would wait for them forever.
        self.rank.share(len(self.asked), "the number of held-out examples (--data.eval_examples)")
        self.rank.share(self.batch_size, "--data.batch_size")

    @cached_property
    def asked(self) -> NDArray[np.int64]:
        """The numbers of what is asked, over all ranks."""
        available = len(self.examples.sizes)
        return evenly_spaced(available, available if self.at_most is None else self.at_most)

    def __iter__(self) -> Iterator[TextBatch | SpanBatch]:
        sizes = self.examples.sizes
        first = np.cumsum(sizes) - sizes
        own = self.rank.rows(self.asked)
        for rounds in self._batches:
            yield self.examples.batch(np.concatenate([np.arange(first[one], first[one] + sizes[one]) for one in own[rounds]]))

    def __len__(self) -> int:
        return len(self._batches)

    @cached_property
    def _batches(self) -> list[slice]:
        """Which of its own each rank reads together."""
        most = self.examples.sizes[self.asked].reshape(-1, self.rank.world_size).max(axis=1)
        room = self.batch_size // self.rank.world_size
        batches, begin, filled = [], 0, 0
        for at, size in enumerate(most):
            if filled and filled + size > room:
                batches.append(slice(begin, at))
                begin, filled = at, 0
            filled += size
        return [*batches, slice(begin, len(most))]
