"""The standard library as a corpus, whole or as two that share no text: its code, and the English of its docstrings."""

import platform
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from ngpt_lab.data.sources.docstrings import separate
from ngpt_lab.data.sources.modules import library_name, library_splits
from ngpt_lab.data.sources.pieces import Piece, recut
from ngpt_lab.data.sources.source import TextSource


class StandardLibrary(TextSource):
    """The source of the running Python's standard library without its tests, about 12 MB, split by module."""

    def __init__(self) -> None:
        self.python = platform.python_version()

    @property
    def name(self) -> str:
        """The library and its version."""
        return library_name()

    def spec(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"class": type(self).__name__, "python": self.python}

    def documents(self, split: str) -> Iterator[bytes]:
        """A split's documents, whole."""
        return iter(library_splits()[split].values())

    def pieces(self, split: str, skip: int = 0) -> Iterator[Piece]:
        """See `TextSource`."""
        whole = (Piece(document, True) for document in self.documents(split) if document)
        return islice(recut(whole), skip, None)

    def state(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"python": platform.python_version()}

    def changed(self, recorded: Mapping[str, Any]) -> str | None:
        """See `TextSource`."""
        was, now = recorded.get("python"), platform.python_version()
        return None if was == now else f"Python was {was} and is {now}"


# The same modules are held out of both, so that neither trains on what the other is evaluated on.
class LibraryCode(StandardLibrary):
    """The source of the running Python's standard library without its docstrings, held out as `StandardLibrary` is."""

    @property
    def name(self) -> str:
        """What of the library it is."""
        return f"code of the {library_name()}"

    def documents(self, split: str) -> Iterator[bytes]:
        """See `StandardLibrary`."""
        return (code for code, _ in _separated()[split])


class LibraryProse(StandardLibrary):
    """The docstrings of the running Python's standard library, held out as `StandardLibrary` is."""

    @property
    def name(self) -> str:
        """What of the library it is."""
        return f"docstrings of the {library_name()}"

    def documents(self, split: str) -> Iterator[bytes]:
        """See `StandardLibrary`; a document is the docstrings of one file."""
        return (prose for _, prose in _separated()[split])


@cache
def _separated() -> Mapping[str, list[tuple[bytes, bytes]]]:
    """Code and docstrings of each split's files, of those that their own Python can parse."""
    return {split: list(_parsed(documents)) for split, documents in library_splits().items()}


def _parsed(documents: Mapping[str, bytes]) -> Iterator[tuple[bytes, bytes]]:
    for document in documents.values():
        try:
            yield separate(document.decode())
        except SyntaxError:
            continue
