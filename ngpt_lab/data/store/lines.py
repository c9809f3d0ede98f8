"""How much of the held-out text also stands in training, by the starts of lines.

A line's start is 64 bytes that lie in one piece of a document. Of each held-out split those with the smallest hashes are
looked for, at most 20,000, so that memory does not grow with the corpus and no order or file format matters.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from heapq import nsmallest
from pathlib import Path

from ngpt_lab.data.corpora import line_starts
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

AT_MOST = 20_000


def sample(starts: Collection[bytes]) -> frozenset[bytes]:
    """The line starts that are looked for."""
    if len(starts) <= AT_MOST:
        return frozenset(starts)
    return frozenset(nsmallest(AT_MOST, starts, key=lambda start: blake2b(start, digest_size=16).digest()))


def found_in(texts: Iterable[bytes], wanted: frozenset[bytes] | None) -> frozenset[bytes]:
    """The line starts of texts that are wanted, or a sample of all of them."""
    starts = {
        start for text in texts for start in (line_starts(text) if wanted is None else wanted.intersection(line_starts(text)))
    }
    return sample(starts) if wanted is None else frozenset(starts)


def shares(held_out: Mapping[str, frozenset[bytes]], found: Collection[bytes]) -> dict[str, float]:
    """The share of each split's line starts that are among `found`; 0 where it has none."""
    return {split: len(starts.intersection(found)) / max(len(starts), 1) for split, starts in held_out.items()}


def write_lines(path: Path, starts: Collection[bytes]) -> None:
    """Keep line starts in a file."""
    write_atomically(path, json.dumps(sorted(start.hex() for start in starts)))


def read_lines(path: Path) -> frozenset[bytes]:
    """The line starts in a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return frozenset(bytes.fromhex(start) for start in json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove {path.parent} to begin anew") from error
