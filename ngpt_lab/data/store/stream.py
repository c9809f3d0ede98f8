"""A split's tokens in files of equal size, each mapped into memory when it is first read."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.corpora import Stream
from ngpt_lab.errors import InputError

BLOCK = 2**20
UNLIMITED = 2**16


def most_maps() -> int:
    """How many maps a stream may keep: each holds a file open, as other streams and the rest of the process do."""
    try:
        import resource
    except ImportError:  # on Windows, which has no such limit
        return UNLIMITED
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UNLIMITED if open_files == resource.RLIM_INFINITY else max(open_files // 4, 1)


class ShardedStream(Stream):
    """Tokens that lie in shards.

    Args:
        shards: files of `shard_tokens` tokens each; the last may hold fewer.
        shard_tokens: tokens in a shard.
        dtype: of a token in a file.
        vocab_size: every token is below it.
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
        vocab_size: int,
        tokens: int,
        starts: Path,
        documents: int,
        size: int | None,
        skip: int = 0,
    ) -> None:
        self._shards, self._shard_tokens, self._dtype, self._skip = list(shards), shard_tokens, np.dtype(dtype), skip
        self._vocab_size, self._tokens, self._starts = vocab_size, tokens, starts
        self._documents, self._bytes = documents, size
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
        """See `Stream`.

        Raises:
            InputError: a file is damaged: it holds a token that is not below `vocab_size`.
        """
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
        if windows.size and windows.max() >= self._vocab_size:
            row, column = np.argwhere(windows >= self._vocab_size)[0]
            raise self._refusal(int(starts[row] + column), int(windows[row, column]))
        return windows

    def _refusal(self, position: int, token: int) -> InputError:
        shard, at = divmod(position, self._shard_tokens)
        return InputError(
            f"{self._shards[shard]} is damaged: token {at + self._skip} is {token}, and every one is below {self._vocab_size}; "
            "make the tokens anew"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_map", "documents")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map = self._maps()

    def _maps(self) -> Callable[[int], NDArray[Any]]:
        shards, size, dtype, tokens, skip = self._shards, self._shard_tokens, self._dtype, self._tokens, self._skip

        @lru_cache(maxsize=most_maps())
        def shard(number: int) -> NDArray[Any]:
            return mapped(shards[number], dtype, skip * dtype.itemsize, min(size, tokens - number * size))

        return shard


def check_starts(path: Path, documents: int, tokens: int) -> None:
    """Refuse a file of where documents begin that does not ascend from 0 to below the number of tokens.

    Raises:
        InputError: it does not, or cannot be read.
    """
    starts, last = mapped(path, np.dtype("<i8"), 0, documents), -1
    fits = bool(documents) == bool(tokens) and (not documents or starts[0] == 0)
    for first in range(0, documents if fits else 0, BLOCK):
        block = np.asarray(starts[first : first + BLOCK])
        fits = fits and bool(block[0] > last and (block[1:] > block[:-1]).all())
        last = int(block[-1])
    if not fits or last >= max(tokens, 1):
        raise InputError(
            f"{path} is damaged: it does not say where documents of {tokens} tokens begin; remove {path.parent} to begin anew"
        )


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
