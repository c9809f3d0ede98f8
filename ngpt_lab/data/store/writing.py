"""A split's files: shards of equal size, and where its documents begin."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ngpt_lab.data.store.feed import Feed
from ngpt_lab.data.store.manifest import ShardRecord, SplitRecord, shard_name, starts_name
from ngpt_lab.data.store.progress import SplitProgress
from ngpt_lab.data.store.sums import read_into
from ngpt_lab.files import atomic_file, reading, write_atomically

BLOCK = 2**20


def write_split(
    store: Path,
    begun: Path,
    progress: SplitProgress,
    feed: Feed,
    shard_tokens: int,
    tell: Callable[[int, int], None],
    save: Callable[[], None],
) -> SplitRecord:
    """Write what is missing of a split's files.

    Args:
        store: the folder of the finished files.
        begun: the folder of what is needed until the split is finished.
        progress: of the split.
        feed: the tokens that are missing.
        shard_tokens: tokens in a shard.
        tell: is called with the bytes and tokens so far.
        save: is called after each full shard, when the progress is that of the files.
    """
    while write_shard(store, begun, progress, feed, shard_tokens, tell):
        feed.settle()
        save()
    feed.settle()
    counts = progress.tokens, progress.size, progress.documents
    return SplitRecord(*counts, join_starts(store, begun, progress), tokens_sha256(store, progress), tuple(progress.shards))


def write_shard(
    store: Path, begun: Path, progress: SplitProgress, feed: Feed, size: int, tell: Callable[[int, int], None]
) -> bool:
    """Write the next shard; whether there may be another."""
    taken = feed.take(size)
    if taken is None:
        return False
    name, before, count = shard_name(progress.split, len(progress.shards)), progress.tokens, 0
    digest, starts = hashlib.sha256(), []
    with atomic_file(store / name) as file:
        while taken is not None:
            tokens, begins = taken
            file.write(tokens.data)
            digest.update(tokens.data)
            starts.append(begins + (before + count))
            count += len(tokens)
            tell(feed.bytes, before + count)
            taken = feed.take(size - count) if count < size else None
    all_starts = np.concatenate(starts).astype("<i8")
    write_atomically(begun / f"{name}.starts", all_starts.tobytes())
    progress.documents += len(all_starts)
    progress.shards.append(ShardRecord(count, digest.hexdigest()))
    return count == size


def tokens_sha256(store: Path, progress: SplitProgress) -> str:
    """The SHA-256 of a split's tokens, whatever the size of a shard.

    A digest that is half done cannot be kept for the process that goes on, so several shards are read once more.
    """
    if len(progress.shards) == 1:
        return progress.shards[0].sha256
    whole = hashlib.sha256()
    for number in range(len(progress.shards)):
        read_into(store / shard_name(progress.split, number), whole)
    return whole.hexdigest()


def join_starts(store: Path, begun: Path, progress: SplitProgress) -> str:
    """Write where the split's documents begin, which was kept shard by shard, into one file; its SHA-256."""
    digest = hashlib.sha256()
    with atomic_file(store / starts_name(progress.split)) as file:
        for number in range(len(progress.shards)):
            path = begun / f"{shard_name(progress.split, number)}.starts"
            with reading(path), path.open("rb") as part:
                while block := part.read(BLOCK):
                    file.write(block)
                    digest.update(block)
    return digest.hexdigest()
