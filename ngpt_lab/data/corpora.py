"""A corpus: three streams of bytes, and how much of the held-out ones also stands in training."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SEPARATOR = b"\0"
SPAN = 64


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three streams of text; each is a (bytes,) uint8 tensor. `python` is the version whose source it is, if any."""

    source: str
    train: Tensor
    validation: Tensor
    test: Tensor
    python: str | None = None

    @property
    def splits(self) -> dict[str, Tensor]:
        """The streams by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents and of where they are split."""
        digest = hashlib.sha256()
        for stream in self.splits.values():
            digest.update(len(stream).to_bytes(8, "little"))
            digest.update(stream.numpy().data)
        return digest.hexdigest()

    @cached_property
    def shared_share(self) -> dict[str, float]:
        """The share of validation's and of test's line starts that are line starts of training too."""
        return {name: shared_share(self.train, self.splits[name]) for name in ("validation", "test")}

    def describe(self) -> dict[str, object]:
        """What a run's record keeps."""
        return {
            "source": self.source,
            "python": self.python,
            "fingerprint": self.fingerprint,
            "bytes": {name: len(stream) for name, stream in self.splits.items()},
            "shared_share": self.shared_share,
        }


def stream(text: bytes) -> Tensor:
    """Text as a (bytes,) uint8 tensor."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0, dtype=torch.uint8)


def join(documents: Iterable[bytes]) -> bytes:
    """One stream of documents, each followed by a zero byte."""
    return b"".join(document + SEPARATOR for document in documents)


def line_starts(text: bytes) -> Iterator[bytes]:
    """The 64 bytes from the start of each line, running on over line ends; none where fewer than 64 are left."""
    start = 0
    while start + SPAN <= len(text):
        yield text[start : start + SPAN]
        end = text.find(b"\n", start)
        if end < 0:
            return
        start = end + 1


def shared_share(train: Tensor, held_out: Tensor) -> float:
    """The share of a held-out stream's line starts that are line starts of training too; 0 where it has none."""
    starts = list(line_starts(held_out.numpy().tobytes()))
    # The set is made of the held-out stream, so memory does not grow with training.
    found = set(starts).intersection(line_starts(train.numpy().tobytes()))
    return sum(start in found for start in starts) / len(starts) if starts else 0.0
