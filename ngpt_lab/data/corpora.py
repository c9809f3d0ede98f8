"""A corpus: three streams of tokens, read through memory maps."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPAN = 64
SPLITS = ("train", "validation", "test")


class Stream(ABC):
    """The tokens of one split, document after document."""

    @abstractmethod
    def __len__(self) -> int:
        """How many tokens there are."""

    @property
    @abstractmethod
    def bytes(self) -> int | None:
        """Bytes of text, a separator counting one; None where it is not known."""

    @property
    @abstractmethod
    def documents(self) -> NDArray[np.int64]:
        """Where each document begins, ascending: (documents,), memory-mapped. The first is 0."""

    @abstractmethod
    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The `length` tokens from each of `starts` on: (len(starts), length).

        Raises:
            IndexError: a window reaches beyond the stream.
        """

    def document_starts(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """For each token of these windows, where in the stream its document begins: (len(starts), length)."""
        if not len(starts) or not length:
            return np.empty((len(starts), length), np.int64)
        begins = self.documents
        first = np.searchsorted(begins, starts, "right") - 1
        counts = np.searchsorted(begins, starts + (length - 1), "right") - first
        # The numbers of the documents that each window meets, all windows in a row.
        ends = np.cumsum(counts)
        numbers = np.arange(ends[-1]) + np.repeat(first - (ends - counts), counts)
        found = np.asarray(begins[numbers])
        # A document runs from its begin, or the window's, to the next one's, or the window's end.
        window = np.repeat(np.arange(len(starts)) * length - starts, counts)
        visible = found + window
        visible[ends - counts] = np.arange(len(starts)) * length
        lengths = np.diff(visible, append=len(starts) * length)
        return np.repeat(found, lengths).reshape(len(starts), length)

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of text for each token; None where bytes are not known or there is no token."""
        return self.bytes / len(self) if self.bytes is not None and len(self) else None


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three streams of tokens, and what a record of a run says of them.

    Args:
        source: the name of the text.
        tokenizer: the name of the tokenizer.
        vocab_size: every token is below it.
        separator: the token that follows each document, if one does.
        fingerprint: SHA-256 of the tokens, the tokenizer and where they are split.
        train: what is trained on.
        validation: what is validated on.
        test: what is tested on.
        shared_share: see `ngpt_lab.data.store.lines`; None where the text is not known.
        python: the version of Python whose source it is, if any.
        folder: where the tokens lie.
    """

    source: str
    tokenizer: str
    vocab_size: int
    separator: int | None
    fingerprint: str
    train: Stream
    validation: Stream
    test: Stream
    shared_share: dict[str, float] | None = None
    python: str | None = None
    folder: Path | None = None

    @property
    def splits(self) -> dict[str, Stream]:
        """The streams by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def describe(self) -> dict[str, Any]:
        """What a run's record keeps."""
        return {
            "source": self.source,
            "python": self.python,
            "tokenizer": self.tokenizer,
            "fingerprint": self.fingerprint,
            "tokens": {name: len(stream) for name, stream in self.splits.items()},
            "bytes": {name: stream.bytes for name, stream in self.splits.items()},
            "documents": {name: len(stream.documents) for name, stream in self.splits.items()},
            "shared_share": self.shared_share,
        }


def line_starts(text: bytes) -> Iterator[bytes]:
    """The 64 bytes from the start of each line, running on over line ends; none where fewer than 64 are left."""
    start = 0
    while start + SPAN <= len(text):
        yield text[start : start + SPAN]
        end = text.find(b"\n", start)
        if end < 0:
            return
        start = end + 1
