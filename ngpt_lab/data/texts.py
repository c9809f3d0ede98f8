"""Texts to name in a config, each of which reads one corpus."""

from abc import ABC, abstractmethod

from ngpt_lab.data.corpora import Corpus
from ngpt_lab.data.docstrings import library_code, library_prose
from ngpt_lab.data.local_files import local_files


class Text(ABC):
    """Where a corpus comes from."""

    @abstractmethod
    def read(self) -> Corpus:
        """The corpus, read once in a process."""


class LibraryCode(Text):
    """The source of the running Python's standard library without its docstrings."""

    def read(self) -> Corpus:
        """See `Text`."""
        return library_code()


class LibraryProse(Text):
    """The docstrings of the running Python's standard library."""

    def read(self) -> Corpus:
        """See `Text`."""
        return library_prose()


class LocalText(Text):
    """The user's own text.

    Args:
        files: path or glob pattern of .txt or .gz files, or a list of them.
    """

    def __init__(self, files: str | list[str]) -> None:
        self.files = [files] if isinstance(files, str) else files

    def read(self) -> Corpus:
        """See `Text`."""
        return local_files(self.files)
