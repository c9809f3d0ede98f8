"""Which windows make up batch k: a pure function of the seed, k and the corpus."""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Computed at once, and kept for the batches that follow: numpy's cost a call is then shared by many windows.
BLOCK = 512
# Twelve make every order of five as likely as any other, as far as thousands of seeds can tell; eight do not.
ROUNDS = 12


class Permutation:
    """The numbers below `size` in a random order that is computed where it is asked for and held nowhere.

    A Feistel network in ROUNDS rounds over pairs of digits of a rectangle that just holds `size`, with cycle walking: a
    number that lands outside goes through again (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). It is
    made of integers alone, so it is the same on every platform and with every numpy.

    Args:
        size: how many numbers, from 1 to 2**63 - 1.
        text: what the order depends on.
    """

    def __init__(self, size: int, text: str) -> None:
        rows = math.isqrt(size - 1) + 1
        self.size, self.rows, self.columns = np.uint64(size), np.uint64(rows), np.uint64(-(-size // rows))
        digests = (hashlib.sha256(f"{text} {part}".encode()).digest() for part in range(ROUNDS // 4))
        self.keys = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)

    def __call__(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """What stands at the places `at` of the order, each of them below `size`."""
        numbers = self._once(at.astype(np.uint64))
        while (outside := numbers >= self.size).any():
            numbers[outside] = self._once(numbers[outside])
        return numbers.astype(np.int64)

    def _once(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        row, column = numbers // self.columns, numbers % self.columns
        for even, odd in self.keys.reshape(-1, 2):
            row = (row + scatter(column, even, self.rows)) % self.rows
            column = (column + scatter(row, odd, self.columns)) % self.columns
        return row * self.columns + column


def scatter(digits: NDArray[np.uint64], key: np.uint64, below: np.uint64) -> NDArray[np.uint64]:
    """A number below `below`, at most 2**32, for each digit: SplitMix64's finaliser on digit + key (Steele et al. 2014)."""
    x = digits + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(32)) * below >> np.uint64(32)


@dataclass(frozen=True)
class WindowOrder:
    """An endless sequence of windows: epoch after epoch, each visits every window once, in an order of its own.

    Nothing depends on what was read before, and no shared random state is touched.

    Args:
        windows: how many there are in an epoch.
        offsets: an epoch lays its windows from an offset below this, drawn anew: text is cut at other places.
        seed: of the order.
        fingerprint: of the corpus.
    """

    windows: int
    offsets: int
    seed: int
    fingerprint: str

    def choose(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of windows `first` to `first + count - 1`: their numbers within their epochs, and their epochs' offsets, (count,)."""
        pieces = []
        while count > 0:
            epoch, at = divmod(first, self.windows)
            block, within = divmod(at, BLOCK)
            pieces.append(_block(self, epoch, block)[:, within : within + count])
            first, count = first + pieces[-1].shape[1], count - pieces[-1].shape[1]
        numbers, offsets = np.concatenate(pieces, axis=1)
        return numbers, offsets


# A batch can straddle two blocks, and one process may read for several runs.
@lru_cache(maxsize=16)
def _block(order: WindowOrder, epoch: int, block: int) -> NDArray[np.int64]:
    text = f"{order.seed} {order.fingerprint} {epoch}"
    offset = int.from_bytes(hashlib.sha256(f"{text} offset".encode()).digest()[:8], "little") % order.offsets
    at = np.arange(block * BLOCK, min((block + 1) * BLOCK, order.windows))
    return np.stack((Permutation(order.windows, text)(at), np.full(len(at), offset)))


def evenly_spaced(available: int, at_most: int) -> NDArray[np.int64]:
    """Up to `at_most` of the numbers below `available`, spread evenly, ascending."""
    count = min(at_most, available)
    return np.arange(count) * available // max(count, 1)
