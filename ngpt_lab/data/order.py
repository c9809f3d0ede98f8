"""Which windows of a stream make up batch k: a pure function of the seed, k and the corpus."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class WindowOrder:
    """An endless sequence of windows over a stream of `length` tokens.

    A window is seq_len inputs and the token after them. An epoch lays windows end to end from an offset below
    seq_len, drawn anew each epoch so that text is cut at other places, and visits each once in a random order.
    Nothing depends on what was read before, and no shared random state is touched.
    """

    length: int
    seq_len: int
    seed: int
    fingerprint: str

    @property
    def windows(self) -> int:
        """Windows in an epoch, the same for every offset."""
        return self.length // self.seq_len - 1

    def starts(self, first: int, count: int) -> Tensor:
        """Where windows `first` to `first + count - 1` of the sequence begin, as (count,) int64."""
        epochs = range(first // self.windows, (first + count - 1) // self.windows + 1)
        starts = np.concatenate([_epoch(self, epoch) for epoch in epochs])
        skipped = first - epochs[0] * self.windows
        return torch.from_numpy(starts[skipped : skipped + count])


# A batch can straddle two epochs, and one process may read for several runs.
@lru_cache(maxsize=8)
def _epoch(order: WindowOrder, epoch: int) -> NDArray[np.int64]:
    key = hashlib.sha256(f"{order.seed} {order.fingerprint} {epoch}".encode()).digest()[:16]
    # Raw bits and a stable sort: numpy promises the same bits in every version, and no such thing of `permutation`.
    bits = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(order.windows + 1)
    offset = int(bits[-1] % order.seq_len)
    return offset + order.seq_len * np.argsort(bits[:-1], kind="stable")


def evenly_spaced_starts(length: int, seq_len: int, at_most: int) -> Tensor:
    """Where up to `at_most` windows begin, as int64: spread evenly over the stream, without overlap."""
    available = (length - 1) // seq_len
    count = min(at_most, available)
    return torch.arange(count) * available // count * seq_len


def cut(stream: Tensor, starts: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, both (len(starts), seq_len) int64; a target is the token after."""
    windows = stream.unfold(0, seq_len + 1, 1)[starts].long()
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
