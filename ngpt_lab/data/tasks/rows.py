"""Columns of a split, whose values can be complained about by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.sources.checks import checked_document
from ngpt_lab.errors import InputError


@dataclass(frozen=True)
class Rows:
    """Some columns of a split.

    Args:
        where: the file or the dataset and its split, for messages.
        columns: the values of each.
        classes: the names of the classes of those that declare them.
        numbers: which row of the split each is, from 0.
    """

    where: str
    columns: Mapping[str, Sequence[Any]]
    classes: Mapping[str, tuple[str, ...]]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, row: int, column: str) -> str:
        """Where a value stands, in words."""
        return f"{self.where}, row {self.numbers[row] + 1}, column {column!r}:"

    def read(self, column: str, value: Callable[[Any], Any]) -> Iterator[Any]:
        """What `value` makes of each value; what is wrong with one follows on where it stands.

        Raises:
            InputError: what `value` raises, with the file, the split, the row and the column.
        """
        for row, raw in enumerate(self.columns[column]):
            try:
                yield value(raw)
            except InputError as error:
                raise InputError(f"{self.at(row, column)} {error}") from error

    def some(self, chosen: NDArray[np.int64]) -> "Rows":
        """Those of its rows that are chosen."""
        columns = {name: [values[row] for row in chosen] for name, values in self.columns.items()}
        return Rows(self.where, columns, self.classes, self.numbers[chosen])


def text_value(value: object) -> str:
    """A text that can be tokenized.

    Raises:
        InputError: it is none, or holds a zero byte or half a character.
    """
    if not isinstance(value, str):
        raise InputError(f"there is no text but {str(value)[:40]!r}: name a column of text")
    try:
        checked_document(value, "it", "refuse")
    except InputError as error:
        raise InputError(str(error).partition(" (errors:")[0]) from error
    return value
