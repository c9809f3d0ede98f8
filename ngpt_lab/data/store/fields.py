"""Reading JSON that may hold anything."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngpt_lab.errors import InputError

LARGEST_FILE = 2**26
LARGEST_COUNT = 2**53


@dataclass(frozen=True)
class Fields:
    """An object of a JSON file, whose fields are read by the type they must have.

    Args:
        path: the file.
        where: where in the file the object stands, for messages.
        content: the object.
    """

    path: Path
    where: str
    content: dict[str, Any]

    @classmethod
    def of_file(cls, path: Path, largest: int = LARGEST_FILE) -> "Fields":
        """The object that a file holds.

        Args:
            path: the file.
            largest: how many bytes it may have.

        Raises:
            InputError: it cannot be read, is absurdly large, or holds no object.
        """
        try:
            if (size := path.stat().st_size) > largest:
                raise InputError(f"{path} has {size} bytes: no file of this kind is larger than {largest}")
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is damaged: it is not JSON; {remedy(path)}") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} is damaged: it holds no object; {remedy(path)}")
        return cls(path, "", content)

    def refusal(self, why: str) -> InputError:
        """The error that says what is wrong with the file."""
        return InputError(f"{self.path} is damaged or was written by another program: {why}; {remedy(self.path)}")

    def object(self, key: str) -> "Fields":
        """A field that is an object."""
        return Fields(self.path, f"{self.where}{key}.", self._get(key, dict, "an object"))

    def objects(self, key: str) -> list["Fields"]:
        """A field that is a list of objects."""
        found = self._get(key, list, "a list")
        if not all(isinstance(each, dict) for each in found):
            raise self.refusal(f"{self.where}{key} is not a list of objects")
        return [Fields(self.path, f"{self.where}{key}.{number}.", each) for number, each in enumerate(found)]

    def text(self, key: str) -> str:
        """A field that is a string."""
        return self._get(key, str, "a string")

    def text_or_none(self, key: str) -> str | None:
        """A field that is a string, or null."""
        return None if self.content.get(key) is None else self.text(key)

    def count(self, key: str) -> int:
        """A field that is a whole number from 0 to 2**53."""
        found = self._get(key, int, "a whole number")
        if isinstance(found, bool) or not 0 <= found <= LARGEST_COUNT:
            raise self.refusal(f"{self.where}{key} is {str(found)[:30]}, which counts nothing")
        return found

    def share(self, key: str) -> float:
        """A field that is a number from 0 to 1."""
        found = self._get(key, int | float, "a number")
        if isinstance(found, bool) or not (math.isfinite(found) and 0 <= found <= 1):
            raise self.refusal(f"{self.where}{key} is {str(found)[:30]}, which is no share")
        return float(found)

    def sha256(self, key: str) -> str:
        """A field that is a SHA-256."""
        found = self.text(key)
        if not re.fullmatch("[0-9a-f]{64}", found):
            raise self.refusal(f"{self.where}{key} is not a SHA-256")
        return found

    def expect(self, key: str, value: str | int) -> None:
        """A field that can have one value only."""
        found = self._get(key, type(value), "as it should be")
        if found != value:
            raise self.refusal(f"{self.where}{key} is {str(found)[:80]!r} and should be {value!r}")

    def _get(self, key: str, kind: Any, called: str) -> Any:
        found = self.content.get(key)
        if not isinstance(found, kind):
            raise self.refusal(f"{self.where}{key} is not {called}")
        return found


def remedy(path: Path) -> str:
    """What to do about a file that is damaged."""
    return f"restore it, or remove {path.parent} to begin anew"
