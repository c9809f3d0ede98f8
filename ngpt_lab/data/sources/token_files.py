"""Sources that hold tokens already."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.corpora import SPLITS, Corpus
from ngpt_lab.data.sources.source import Source
from ngpt_lab.data.sources.stamps import changed_files, renewed_stamps, stamps
from ngpt_lab.data.store.fields import Fields
from ngpt_lab.data.store.lock import locked
from ngpt_lab.data.store.manifest import check_sizes, starts_name
from ngpt_lab.data.store.opening import open_folder
from ngpt_lab.data.store.place import default_folder
from ngpt_lab.data.store.stream import ShardedStream, check_starts
from ngpt_lab.errors import InputError
from ngpt_lab.files import atomic_file, reading, write_atomically

if TYPE_CHECKING:
    from ngpt_lab.data.tokenizers import Tokenizer

SCAN = "scan.json"
BLOCK = 2**22
WIDTH = 2


class TokenStore(Source):
    """A folder that `ngpt-lab tokenize` has made, as it is: the text need not be there.

    Args:
        folder: The folder with manifest.json.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser().absolute()

    def prepare(self, tokenizer: "Tokenizer | None", folder: Path | None, processes: int) -> None:
        """See `Source`; there is nothing to make."""
        self.open(tokenizer, folder)

    def open(self, tokenizer: "Tokenizer | None", folder: Path | None) -> Corpus:
        """See `Source`."""
        refuse_tokenizer(tokenizer, self.folder)
        if folder is not None and folder.expanduser().absolute() != self.folder:
            raise InputError(f"{self.folder} is read as it is, so nothing goes to {folder}: leave --data.store out")
        return open_folder(self.folder)


@dataclass(frozen=True)
class Part:
    """A split: `tokens` of a file from `first` on."""

    path: Path
    first: int
    tokens: int


class NanoGPTFiles(Source):
    """train.bin and val.bin as nanoGPT writes them: ids as 16-bit little-endian numbers, read where they lie.

    test.bin is the test split if it is there, else the second half of val.bin is. The files are looked through once; what
    is found is kept in the folder for tokens.

    Args:
        folder: The folder with train.bin and val.bin.
        vocab_size: Every id is below it.
        separator: The id that follows each document; null where there is none.
    """

    def __init__(self, folder: str, vocab_size: int = 50257, separator: int | None = 50256) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.vocab_size, self.separator = vocab_size, separator
        if separator is not None and not 0 <= separator < vocab_size:
            raise InputError(f"separator {separator} of {self.folder} is no id below vocab_size {vocab_size}")

    def prepare(self, tokenizer: "Tokenizer | None", folder: Path | None, processes: int) -> None:
        """See `Source`."""
        refuse_tokenizer(tokenizer, self.folder)
        kept = self._kept(folder)
        if (kept / SCAN).exists():
            self._renew(kept)
            return
        with locked(kept):
            if not (kept / SCAN).exists():
                self._scan(kept)

    def open(self, tokenizer: "Tokenizer | None", folder: Path | None) -> Corpus:
        """See `Source`."""
        refuse_tokenizer(tokenizer, self.folder)
        kept = self._kept(folder)
        parts = self._parts()
        scan = Fields.of_file(kept / SCAN)
        scan.expect("vocab_size", self.vocab_size)
        if scan.content.get("separator") != self.separator:
            raise InputError(f"{kept} was made with another separator than {self.separator}: remove it to begin anew")
        if changed := changed_files(addresses_of(parts), self._recorded(scan)):
            raise InputError(
                f"{changed}, so these are not the files that were looked through into {kept}: remove {kept} to look through "
                "them anew, or restore them"
            )
        documents = {split: scan.object("documents").count(split) for split in SPLITS}
        check_sizes(kept, {starts_name(split): 8 * count for split, count in documents.items()})
        train, validation, test = (self._stream(parts[split], kept / starts_name(split), documents[split]) for split in SPLITS)
        return Corpus(
            source=self.folder.name,
            tokenizer=f"ids below {self.vocab_size}",
            vocab_size=self.vocab_size,
            separator=self.separator,
            fingerprint=scan.sha256("fingerprint"),
            train=train,
            validation=validation,
            test=test,
            folder=kept,
        )

    def _stream(self, part: Part, starts: Path, documents: int) -> ShardedStream:
        check_starts(starts, documents, part.tokens)
        shape = part.tokens, "<u2", self.vocab_size, part.tokens
        return ShardedStream([part.path], *shape, starts, documents, None, part.first)

    def _kept(self, folder: Path | None) -> Path:
        if folder is not None:
            return folder.expanduser().absolute()
        spec = {"folder": str(self.folder), "vocab_size": self.vocab_size, "separator": self.separator}
        return default_folder(self.folder.name, {"source": {"class": "NanoGPTFiles", **spec}})

    def _parts(self) -> dict[str, Part]:
        train, val, test = (self.folder / f"{name}.bin" for name in ("train", "val", "test"))
        held_out = count_tokens(val)
        parts = {"train": Part(train, 0, count_tokens(train))}
        if test.exists():
            return {**parts, "validation": Part(val, 0, held_out), "test": Part(test, 0, count_tokens(test))}
        half = held_out // 2
        return {**parts, "validation": Part(val, 0, half), "test": Part(val, half, held_out - half)}

    def _scan(self, kept: Path) -> None:
        parts = self._parts()
        documents = {split: self._write_starts(parts[split], kept / starts_name(split)) for split in SPLITS}
        files = {Path(address).name: stamp for address, stamp in stamps(addresses_of(parts)).items()}
        digest = hashlib.sha256(f"{self.vocab_size} {self.separator}".encode())
        for split in SPLITS:
            part = parts[split]
            digest.update(f" {split} {files[part.path.name]['sha256']} {part.first} {part.tokens}".encode())
        found = {
            "vocab_size": self.vocab_size,
            "separator": self.separator,
            "documents": documents,
            "files": dict(sorted(files.items())),
            "fingerprint": digest.hexdigest(),
        }
        write_atomically(kept / SCAN, json.dumps(found, indent=1) + "\n")

    def _recorded(self, scan: Fields) -> dict[str, Any]:
        """What the files were, by their paths."""
        return {str(self.folder / name): stamp for name, stamp in scan.object("files").content.items()}

    def _renew(self, kept: Path) -> None:
        """Write down the times of files that have a new one and the same content, unless the folder can only be read."""
        scan = Fields.of_file(kept / SCAN)
        if renewed := renewed_stamps(addresses_of(self._parts()), self._recorded(scan)):
            files = {Path(address).name: stamp for address, stamp in renewed.items()}
            with suppress(InputError):
                write_atomically(kept / SCAN, json.dumps({**scan.content, "files": files}, indent=1) + "\n")

    def _write_starts(self, part: Part, path: Path) -> int:
        count = 0
        with atomic_file(path) as file:
            for first, tokens in blocks(part):
                if tokens.max() >= self.vocab_size:
                    at = int(np.argmax(tokens >= self.vocab_size))
                    raise InputError(
                        f"{part.path} holds id {tokens[at]} at token {part.first + first + at}, and vocab_size is "
                        f"{self.vocab_size}: name the vocabulary's size with --data.source.vocab_size"
                    )
                ends = np.flatnonzero(tokens == self.separator) if self.separator is not None else np.empty(0, np.int64)
                starts = np.concatenate([[0], first + ends + 1] if first == 0 else [first + ends + 1])
                starts = starts[starts < part.tokens].astype("<i8")
                file.write(starts.tobytes())
                count += len(starts)
        return count


def refuse_tokenizer(tokenizer: "Tokenizer | None", folder: Path) -> None:
    """Refuse to tokenize tokens.

    Raises:
        InputError: a tokenizer is named.
    """
    if tokenizer is not None:
        raise InputError(f"{folder} holds tokens already: leave --data.tokenizer out")


def count_tokens(path: Path) -> int:
    """The tokens in a file.

    Raises:
        InputError: there is no such file, or it holds no whole number of tokens.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): a folder of nanoGPT holds train.bin and val.bin"
        ) from error
    if size < 2 * WIDTH or size % WIDTH:
        raise InputError(f"{path} has {size} bytes, which is no whole number of two or more 16-bit ids: write it again")
    return size // WIDTH


def blocks(part: Part) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """A split's tokens some at a time, each with the position of its first."""
    with reading(part.path), part.path.open("rb") as file:
        file.seek(part.first * WIDTH)
        for first in range(0, part.tokens, BLOCK):
            yield first, np.frombuffer(file.read(WIDTH * min(BLOCK, part.tokens - first)), "<u2")


def addresses_of(parts: dict[str, Part]) -> list[str]:
    """The files of all splits."""
    return sorted({str(part.path) for part in parts.values()})
