"""Checksums of files, a megabyte at a time."""

from pathlib import Path
from typing import Any

from ngpt_lab.files import reading

BLOCK = 2**20


def read_into(path: Path, *digests: Any) -> None:
    """Give a file's bytes to digests of `hashlib`.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        while block := file.read(BLOCK):
            for digest in digests:
                digest.update(block)
