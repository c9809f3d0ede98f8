"""What the tests of the loader read; a module of its own, so that the workers can import it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.corpora import Stream
from ngpt_lab.errors import InputError


class MadeStream(Stream):
    """Token i of the stream is i, so that a token tells where it stands.

    Args:
        lengths: of its documents, in tokens.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        edges = np.cumsum([0, *lengths])
        self.begins, self._length = edges[:-1], int(edges[-1])

    def __len__(self) -> int:
        return self._length

    @property
    def bytes(self) -> int | None:
        return None

    @property
    def documents(self) -> NDArray[np.int64]:
        return self.begins

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        places = starts[:, None] + np.arange(length)
        assert places.size == 0 or (places.min() >= 0 and places.max() < len(self))
        return places


def refuse_seven(number: int) -> int:
    """The number itself."""
    if number == 7:
        raise InputError("seven is bad")
    return number
