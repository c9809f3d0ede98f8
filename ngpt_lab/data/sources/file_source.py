"""Sources whose splits are files: the splits that they lack are cut from those that they have."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ngpt_lab.data.sources.pieces import Piece, between, measure, recut
from ngpt_lab.data.sources.source import TextSource
from ngpt_lab.data.sources.stamps import changed_files, renewed_stamps, stamps

# By the splits that a source has itself: the one that each is taken from, and its bounds in 20ths of the bytes.
BOUNDS: Mapping[frozenset[str], Mapping[str, tuple[str, int, int]]] = {
    frozenset({"train"}): {"train": ("train", 0, 18), "validation": ("train", 18, 19), "test": ("train", 19, 20)},
    frozenset({"train", "validation"}): {
        "train": ("train", 0, 20),
        "validation": ("validation", 0, 10),
        "test": ("validation", 10, 20),
    },
    frozenset({"train", "test"}): {"train": ("train", 0, 19), "validation": ("train", 19, 20), "test": ("test", 0, 20)},
    frozenset({"train", "validation", "test"}): {
        "train": ("train", 0, 20),
        "validation": ("validation", 0, 20),
        "test": ("test", 0, 20),
    },
}


class FileSource(TextSource):
    """Files of documents by split.

    A cut by bytes counts one byte after each document, and may fall inside a document and inside a character; each
    side of it is then a document of its own split.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    @abstractmethod
    def files(self) -> dict[str, list[str]]:
        """The files of each split that there are files for, in their order.

        Raises:
            InputError: there are none.
        """

    @abstractmethod
    def read(self, address: str) -> Iterator[Piece]:
        """A file's documents, in pieces of any length."""

    def size(self, address: str) -> int:
        """Bytes of a file's documents, each with one separator byte after it."""
        known = self.known_size(address)
        return measure(self.read(address)) if known is None else known

    def known_size(self, address: str) -> int | None:
        """The same, where it is known without reading the file."""
        return None

    def expected(self, split: str) -> int | None:
        """See `TextSource`."""
        files = self.files()
        name, first, last = BOUNDS[frozenset(files)][split]
        sizes = [self.known_size(address) for address in files[name]]
        if any(size is None for size in sizes):
            return None
        whole = sum(filter(None, sizes))
        return whole * last // 20 - whole * first // 20

    def pieces(self, split: str, skip: int = 0) -> Iterator[Piece]:
        """See `TextSource`."""
        return islice(recut(self._texts(split)), skip, None)

    def state(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"files": stamps(self._all_files())}

    def changed(self, recorded: Mapping[str, Any]) -> str | None:
        """See `TextSource`."""
        return changed_files(self._all_files(), recorded.get("files"))

    def renewed(self, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `TextSource`."""
        files = renewed_stamps(self._all_files(), recorded.get("files"))
        return files and {"files": files}

    def _all_files(self) -> list[str]:
        return sorted({address for addresses in self.files().values() for address in addresses})

    def _texts(self, split: str) -> Iterator[Piece]:
        files = self.files()
        name, first, last = BOUNDS[frozenset(files)][split]
        if (first, last) == (0, 20):
            for address in files[name]:
                yield from self.read(address)
            return
        sizes = [self._size_once(address) for address in files[name]]
        start, stop = sum(sizes) * first // 20, sum(sizes) * last // 20
        position = 0
        for address, size in zip(files[name], sizes, strict=True):
            # A file that lies outside is not read again.
            if position < stop and start < position + size:
                yield from between(self.read(address), start - position, stop - position)
            position += size

    def _size_once(self, address: str) -> int:
        if address not in self._sizes:
            self._sizes[address] = self.size(address)
        return self._sizes[address]
