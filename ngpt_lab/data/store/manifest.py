"""manifest.json: what a store holds. It depends on the documents, the tokenizer and the shards' size alone."""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ngpt_lab.data.corpora import SPLITS
from ngpt_lab.data.store.fields import Fields
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
# Of no tokens.
NOTHING = hashlib.sha256().hexdigest()
DTYPES = {"uint16": 2, "uint32": 4}


@dataclass(frozen=True)
class ShardRecord:
    """One file of tokens."""

    tokens: int
    sha256: str

    @classmethod
    def read(cls, fields: Fields, name: str) -> "ShardRecord":
        """From JSON.

        Raises:
            InputError: something is of another type or size, or the file has another name than `name`.
        """
        # A name is never followed, only compared: no manifest leads to another file.
        fields.expect("file", name)
        return cls(fields.count("tokens"), fields.sha256("sha256"))


@dataclass(frozen=True)
class SplitRecord:
    """The files of a split."""

    tokens: int
    bytes: int
    documents: int
    starts_sha256: str
    tokens_sha256: str
    shards: tuple[ShardRecord, ...]

    @classmethod
    def read(cls, fields: Fields, split: str, shard_tokens: int) -> "SplitRecord":
        """From JSON; see `ShardRecord.read`."""
        shards = tuple(
            ShardRecord.read(each, shard_name(split, number)) for number, each in enumerate(fields.objects("shards"))
        )
        # One shard holds all tokens, and has their sum.
        whole = fields.sha256("tokens_sha256") if len(shards) > 1 else shards[0].sha256 if shards else NOTHING
        counts = fields.count("tokens"), fields.count("bytes"), fields.count("documents")
        record = cls(*counts, fields.sha256("starts_sha256"), whole, shards)
        # Not a list of as many as there should be, which the file could say to be any number.
        full = max(len(shards) - 1, 0)
        fits = [shard.tokens for shard in shards[:full]] == [shard_tokens] * full
        fits = fits and all(0 < shard.tokens <= shard_tokens for shard in shards[full:])
        if not fits or sum(shard.tokens for shard in shards) != record.tokens or record.documents > record.tokens:
            raise fields.refusal(f"the shards of {split} do not add up to its {record.tokens} tokens")
        return record

    def as_json(self, split: str) -> dict[str, Any]:
        """As JSON."""
        shards = [{"file": shard_name(split, number), **asdict(shard)} for number, shard in enumerate(self.shards)]
        return {**asdict(self), "shards": shards}


@dataclass(frozen=True)
class TokenizerRecord:
    """Which tokenizer made the tokens."""

    name: str
    fingerprint: str
    vocab_size: int
    separator: int

    @classmethod
    def read(cls, fields: Fields) -> "TokenizerRecord":
        """From JSON; see `ShardRecord.read`."""
        record = cls(fields.text("name"), fields.sha256("fingerprint"), fields.count("vocab_size"), fields.count("separator"))
        if not record.separator < record.vocab_size <= 2**32:
            raise fields.refusal(f"vocab_size {record.vocab_size} does not fit separator {record.separator} in 32 bits")
        return record


@dataclass(frozen=True)
class Manifest:
    """All of it."""

    tokenizer: TokenizerRecord
    dtype: str
    shard_tokens: int
    splits: dict[str, SplitRecord]
    shared_share: dict[str, float]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's fingerprint and of each split's name and tokens, however they are cut into shards."""
        digest = hashlib.sha256(self.tokenizer.fingerprint.encode())
        for split in SPLITS:
            if self.splits[split].tokens:
                digest.update(f" {split} {self.splits[split].tokens_sha256}".encode())
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """How many bytes each file of tokens or of documents' starts has."""
        width = DTYPES[self.dtype]
        sizes = {starts_name(split): 8 * record.documents for split, record in self.splits.items()}
        for split, record in self.splits.items():
            sizes |= {shard_name(split, number): width * shard.tokens for number, shard in enumerate(record.shards)}
        return sizes

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        described = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "tokenizer": asdict(self.tokenizer),
            "dtype": self.dtype,
            "shard_tokens": self.shard_tokens,
            "splits": {split: self.splits[split].as_json(split) for split in SPLITS},
            "shared_share": self.shared_share,
        }
        write_atomically(folder / MANIFEST, json.dumps(described, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store; nothing but its own file is looked at.

    Raises:
        InputError: there is none, or something in it is of another type, form or size than `Manifest.write` writes.
    """
    fields = Fields.of_file(folder / MANIFEST)
    fields.expect("format", FORMAT)
    shard_tokens = fields.count("shard_tokens")
    if (dtype := fields.text("dtype")) not in DTYPES or not shard_tokens:
        raise fields.refusal(f"dtype {dtype!r} and shard_tokens {shard_tokens} are not those of a store")
    splits = fields.object("splits")
    manifest = Manifest(
        TokenizerRecord.read(fields.object("tokenizer")),
        dtype,
        shard_tokens,
        {split: SplitRecord.read(splits.object(split), split, shard_tokens) for split in SPLITS},
        {split: fields.object("shared_share").share(split) for split in SPLITS[1:]},
    )
    if manifest.tokenizer.vocab_size > 256 ** DTYPES[dtype]:
        raise fields.refusal(f"{dtype} does not hold ids up to {manifest.tokenizer.vocab_size - 1}")
    fields.expect("fingerprint", manifest.fingerprint)
    return manifest


def check_sizes(folder: Path, sizes: Mapping[str, int], whole: Path | None = None) -> None:
    """Compare the sizes of files with what they should be.

    Args:
        folder: where they lie.
        sizes: bytes of each.
        whole: what the user would have to remove; the folder, where it is left out.

    Raises:
        InputError: one is missing, a link, or has another size.
    """
    whole = whole or folder
    for name, size in sizes.items():
        path = folder / name
        try:
            found = path.lstat()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): remove {whole} to tokenize it anew") from error
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no file of its own but leads elsewhere: remove {whole} to tokenize it anew")
        if found.st_size != size:
            raise InputError(f"{path} has {found.st_size} bytes instead of {size}: remove {whole} to tokenize it anew")


def shard_name(split: str, number: int) -> str:
    """The file of a split's shard."""
    return f"{split}-{number:05d}.bin"


def starts_name(split: str) -> str:
    """The file of where a split's documents begin."""
    return f"{split}.starts"
