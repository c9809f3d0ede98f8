"""Opening a finished store, which reads and never writes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.corpora import SPLITS, Corpus
from ngpt_lab.data.encoders import TOKENIZER_JSON, ByteEncoder, file_fingerprint, read_tokenizer
from ngpt_lab.data.store.manifest import MANIFEST, Manifest, check_sizes, read_manifest, shard_name, starts_name
from ngpt_lab.data.store.place import check_source, read_source, store_folder
from ngpt_lab.data.store.stream import ShardedStream, check_starts
from ngpt_lab.data.store.sums import read_into
from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import TextSource
    from ngpt_lab.data.tokenizers import Tokenizer


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole store."""
    return (folder / MANIFEST).is_file()


def open_store(source: "TextSource", tokenizer: "Tokenizer | None", folder: Path | None) -> Corpus:
    """The tokens of a source.

    Raises:
        InputError: they are not there, damaged, or made from something else.
    """
    from ngpt_lab.data.tokenizers import Bytes

    tokenizer = tokenizer or Bytes()
    folder = store_folder(source, tokenizer, folder)
    corpus = open_folder(folder)
    check_source(source, tokenizer, read_source(folder), folder)
    return corpus


def open_folder(folder: Path) -> Corpus:
    """The tokens in a folder, whatever they were made from.

    Raises:
        InputError: there are none, or a file is not as large as it should be.
    """
    if not is_finished(folder):
        raise InputError(f"{folder} holds no tokens (no {MANIFEST}): make them with ngpt-lab tokenize")
    manifest = read_manifest(folder)
    check_sizes(folder, manifest.sizes())
    source = read_source(folder)
    train, validation, test = (open_split(folder, manifest, split) for split in SPLITS)
    return Corpus(
        source=source.text("name"),
        tokenizer=manifest.tokenizer.name,
        vocab_size=manifest.tokenizer.vocab_size,
        separator=manifest.tokenizer.separator,
        fingerprint=manifest.fingerprint,
        shared_share=manifest.shared_share,
        python=source.text_or_none("python"),
        train=train,
        validation=validation,
        test=test,
        folder=folder,
    )


def open_split(folder: Path, manifest: Manifest, split: str) -> ShardedStream:
    """One split of a store."""
    record = manifest.splits[split]
    shards = [folder / shard_name(split, number) for number in range(len(record.shards))]
    dtype = "<u2" if manifest.dtype == "uint16" else "<u4"
    starts = folder / starts_name(split)
    check_starts(starts, record.documents, record.tokens)
    vocab_size = manifest.tokenizer.vocab_size
    return ShardedStream(
        shards, manifest.shard_tokens, dtype, vocab_size, record.tokens, starts, record.documents, record.bytes
    )


def verify(folder: Path, tell: Callable[[int], None] = lambda size: None) -> Manifest:
    """Read every file of a store and compare its checksum; `tell` is called with the bytes of each.

    Raises:
        InputError: a file is not what was written.
    """
    manifest = read_manifest(folder)
    check_sizes(folder, sizes := manifest.sizes())
    for split, record in manifest.splits.items():
        check_sum(folder / starts_name(split), record.starts_sha256)
        whole = hashlib.sha256()
        for number, shard in enumerate(record.shards):
            path = folder / shard_name(split, number)
            check_sum(path, shard.sha256, *([whole] if len(record.shards) > 1 else []))
            tell(sizes[path.name])
        if len(record.shards) > 1 and whole.hexdigest() != record.tokens_sha256:
            raise InputError(f"{folder / MANIFEST} is damaged (its checksum of {split} differs): remove {folder}")
        tell(sizes[starts_name(split)])
    check_tokenizer(folder, manifest)
    return manifest


def check_sum(path: Path, expected: str, *others: Any) -> None:
    """Compare a file's SHA-256 with what it should be; `others` are given its bytes too.

    Raises:
        InputError: it is another.
    """
    digest = hashlib.sha256()
    read_into(path, digest, *others)
    if digest.hexdigest() != expected:
        raise InputError(f"{path} is damaged (its checksum differs): remove {path.parent} to tokenize it anew")


def check_tokenizer(folder: Path, manifest: Manifest) -> None:
    """Compare the tokenizer beside the tokens with the one that made them.

    Raises:
        InputError: it is another.
    """
    if manifest.tokenizer.fingerprint == ByteEncoder.fingerprint:
        return
    path = folder / TOKENIZER_JSON
    if file_fingerprint(read_tokenizer(path), manifest.tokenizer.separator) != manifest.tokenizer.fingerprint:
        raise InputError(f"{path} is not the tokenizer that made the tokens beside it: remove {folder} to tokenize it anew")
