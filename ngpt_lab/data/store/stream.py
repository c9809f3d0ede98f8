"""A split's tokens in files of equal size, each mapped into memory when it is first read."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.corpora import Stream
from ngpt_lab.errors import InputError

# Each map holds a file open, and a process may have 1,024 of them.
MAPS = 128


class ShardedStream(Stream):
    """Tokens that lie in shards.

    Args:
        shards: files of `shard_tokens` tokens each; the last may hold fewer.
        shard_tokens: tokens in a shard.
        dtype: of a token in a file.
        tokens: how many there are in all.
        skip: tokens at the beginning of the first file that are not of this stream; only where it is the only one.
        starts: the file of where each document begins, int64.
        documents: how many documents there are.
        size: bytes of text, if known.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        shard_tokens: int,
        dtype: str,
        tokens: int,
        starts: Path,
        documents: int,
        size: int | None,
        skip: int = 0,
    ) -> None:
        self._shards, self._shard_tokens, self._dtype, self._skip = list(shards), shard_tokens, np.dtype(dtype), skip
        self._tokens, self._starts, self._documents, self._bytes = tokens, starts, documents, size
        self._map = self._maps()

    def __len__(self) -> int:
        return self._tokens

    @property
    def bytes(self) -> int | None:
        """See `Stream`."""
        return self._bytes

    @cached_property
    def documents(self) -> NDArray[np.int64]:
        """See `Stream`."""
        return mapped(self._starts, np.dtype("<i8"), 0, self._documents)

    @property
    def shards(self) -> list[Path]:
        """The files of tokens."""
        return self._shards

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """See `Stream`."""
        if len(starts) and (starts.min() < 0 or starts.max() + length > self._tokens):
            raise IndexError(f"a window of {length} reaches beyond a stream of {self._tokens} tokens")
        windows = np.empty((len(starts), length), np.int64)
        for window, start in zip(windows, starts.tolist(), strict=True):
            shard, at = divmod(start, self._shard_tokens)
            filled = 0
            while filled < length:
                found = self._map(shard)[at : at + length - filled]
                window[filled : filled + len(found)] = found
                filled, shard, at = filled + len(found), shard + 1, 0
        return windows

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_map", "documents")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map = self._maps()

    def _maps(self) -> Callable[[int], NDArray[Any]]:
        shards, size, dtype, tokens, skip = self._shards, self._shard_tokens, self._dtype, self._tokens, self._skip

        @lru_cache(maxsize=MAPS)
        def shard(number: int) -> NDArray[Any]:
            return mapped(shards[number], dtype, skip * dtype.itemsize, min(size, tokens - number * size))

        return shard


def mapped(path: Path, dtype: np.dtype[Any], offset: int, count: int) -> NDArray[Any]:
    """`count` numbers of a file, which are read when they are looked at.

    Raises:
        InputError: there is no such file, or it is shorter.
    """
    if not count:  # nothing cannot be mapped
        return np.empty(0, dtype)
    try:
        return np.memmap(path, dtype, "r", offset, (count,)).view(np.ndarray)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
