"""Files by pattern or web address, and what their names say about their form."""

import glob
import os
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from ngpt_lab.errors import InputError

FORMATS = (".txt", ".jsonl", ".csv", ".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst", ".xz")


class Form(NamedTuple):
    """The kind of file, and how it is compressed: "" where it is not."""

    format: str
    compression: str


def is_remote(address: str) -> bool:
    """Whether a file is read over the network."""
    return address.startswith(("http://", "https://"))


def file_name(address: str) -> str:
    """The last part of a path or of a web address."""
    return os.path.basename(urlsplit(address).path if is_remote(address) else address)


def form(address: str) -> Form:
    """What a file's extensions say; a compressed file without another extension is text.

    Raises:
        InputError: they say nothing that is read.
    """
    stem, suffix = os.path.splitext(file_name(address).lower())
    compression = suffix if suffix in COMPRESSIONS else ""
    kind = (os.path.splitext(stem)[1] or ".txt") if compression else suffix
    if kind not in FORMATS:
        raise InputError(
            f"{address} is of an unknown kind: files are {', '.join(FORMATS)}, and each may be compressed as "
            f"{', '.join(COMPRESSIONS)}"
        )
    return Form(kind, compression)


def absolute(patterns: Iterable[str]) -> list[str]:
    """Patterns with their folders, and web addresses as they are.

    Raises:
        InputError: an address is of another protocol.
    """
    return [pattern if is_remote(pattern) else _absolute(pattern) for pattern in patterns]


def matches(patterns: Iterable[str], setting: str) -> list[str]:
    """The files that any of the absolute patterns matches, sorted; a web address is taken as it is.

    Raises:
        InputError: a pattern matches nothing, or a folder, or a file of a kind that is not read.
    """
    found = sorted({address for pattern in patterns for address in _matches(pattern, setting)})
    for address in found:
        form(address)
    return found


def _absolute(pattern: str) -> str:
    if "://" in pattern:
        raise InputError(f"{pattern} cannot be read: a file is a path on this machine or an http(s) address")
    return os.path.abspath(os.path.expanduser(pattern))


def _matches(pattern: str, setting: str) -> list[str]:
    if is_remote(pattern):
        return [pattern]
    # A name may hold brackets, which mean something else to glob.
    paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    # `**` alone matches folders as well.
    files = paths if "**" not in pattern else [path for path in paths if not os.path.isdir(path)]
    if not files:
        raise InputError(f"no file matches {pattern} ({setting}): give the path of a file, or a pattern")
    for path in files:
        if os.path.isdir(path):
            raise InputError(f"{path} ({setting}) is a folder: name its files, as in {path}/*.txt")
    return files
