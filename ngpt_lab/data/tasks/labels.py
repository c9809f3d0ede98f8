"""Classes: from what stands in a column to their numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ngpt_lab.data.tasks.rows import Rows
from ngpt_lab.errors import InputError

# A column of identifiers is none of classes.
MOST = 100_000


@dataclass(frozen=True)
class Classes:
    """The classes of a column.

    Args:
        names: in the order of their numbers.
        by_name: whether the column holds the names; else it holds the numbers.
    """

    names: tuple[str, ...]
    by_name: bool

    def number(self, value: object) -> int:
        """The number of a value's class.

        Raises:
            InputError: it is none of them.
        """
        if self.by_name:
            if value not in self.names:
                raise InputError(f"the label {str(value)!r} is none of {listed(self.names)}")
            return self.names.index(str(value))
        if not isinstance(value, int) or not 0 <= value < len(self.names):
            told = "a test split often has no labels" if value == -1 else "use the numbers of the classes, from 0"
            raise InputError(f"the label {value!r} is out of range: there are {len(self.names)} classes; {told}")
        return int(value)


def classes_of(rows: Rows, column: str, values: Iterable[Any]) -> Classes:
    """The classes of a column of the training split: as it declares them, or those that stand in it.

    Args:
        rows: the training split, with what is held out of it.
        column: which holds the classes, or lists of them.
        values: every class in it.

    Raises:
        InputError: what stands in it is neither text nor whole numbers from 0, or is one class alone.
    """
    where = f"{rows.where}, column {column!r}"
    if column in rows.classes:
        classes = Classes(rows.classes[column], by_name=False)
    else:
        classes = _found([value for value in values if value is not None], where)
    if len(classes.names) < 2:
        raise InputError(f"{where}: all labels are {listed(classes.names)}: give examples of at least two classes")
    return classes


def _found(found: Sequence[Any], where: str) -> Classes:
    """The classes that stand in a column."""
    if found and all(isinstance(value, str) for value in found):
        return Classes(tuple(sorted(set(found))), by_name=True)
    if not found or not all(isinstance(value, int) for value in found):
        others = sorted({str(value)[:40] for value in found if not isinstance(value, int)})
        raise InputError(f"{where} holds no classes but {listed(others) or 'nothing'}: name a column of text or whole numbers")
    if max(found) >= MOST:
        raise InputError(f"{where} holds {max(found)}: number the classes from 0, without holes")
    return Classes(tuple(map(str, range(max(found) + 1))), by_name=False)


def list_value(value: object) -> Sequence[Any]:
    """A list.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, list):
        raise InputError(f"there is no list but {str(value)[:40]!r}")
    return value


def listed(names: Sequence[str]) -> str:
    """A few names."""
    return ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
