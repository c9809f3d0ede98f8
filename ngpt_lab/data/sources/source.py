"""What a config names as the data's source, and what every source of text offers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.sources.pieces import PIECE_BYTES, Piece

if TYPE_CHECKING:
    from ngpt_lab.data.corpora import Corpus
    from ngpt_lab.data.tokenizers import Tokenizer

__all__ = ["PIECE_BYTES", "SPLITS", "Piece", "Source", "TextSource"]

SPLITS = ("train", "validation", "test")


class Source(ABC):
    """Where a corpus comes from."""

    @abstractmethod
    def prepare(self, tokenizer: "Tokenizer | None", folder: Path | None, processes: int) -> None:
        """Make what `open` reads; called on one process, and may write."""

    @abstractmethod
    def open(self, tokenizer: "Tokenizer | None", folder: Path | None) -> "Corpus":
        """The corpus; called on every rank, and only reads."""


class TextSource(Source):
    """Documents of text in three splits, which a tokenizer turns into a store of tokens.

    `python` is the version of Python whose text it is, if any.
    """

    python: str | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """For records and messages."""

    @property
    def folder_name(self) -> str:
        """What a folder of its tokens may be called: it depends on `spec` alone."""
        return self.name

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What is read, as JSON: the class and its arguments, paths absolute."""

    @abstractmethod
    def pieces(self, split: str, skip: int = 0) -> Iterator[Piece]:
        """A split's documents in pieces of at most PIECE_BYTES, always the same ones; the first `skip` are left out."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What is there now, as JSON: sizes, times and sums of files, or the revision of a dataset."""

    @abstractmethod
    def changed(self, recorded: Mapping[str, Any]) -> str | None:
        """A clause that names what has changed since `recorded`, which is what `state` was."""

    def expected(self, split: str) -> int | None:
        """Bytes of a split, a separator counting one, where that is known without reading it."""
        return None

    def renewed(self, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to record instead of `recorded`, so that `changed` has less to compare; None where there is nothing."""
        return None

    def prepare(self, tokenizer: "Tokenizer | None", folder: Path | None, processes: int) -> None:
        """See `Source`."""
        from ngpt_lab.data import store  # the store reads sources

        store.build(self, tokenizer, folder, processes)

    def open(self, tokenizer: "Tokenizer | None", folder: Path | None) -> "Corpus":
        """See `Source`."""
        from ngpt_lab.data import store  # the store reads sources

        return store.open_store(self, tokenizer, folder)
