"""One process at a time makes a store."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ngpt_lab.files import writing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which need not be there, for the time within; wait for a process that holds it.

    The lock is the system's and ends with its process, however that dies.

    Raises:
        InputError: no lock can be written beside the folder.
    """
    path = folder.with_name(f".{folder.name}.lock")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        handle = take(path, folder)
    try:
        yield
    finally:
        # Removed while it is held: who waited for it finds that it is no longer the file of that name.
        path.unlink(missing_ok=True)
        os.close(handle)


def take(path: Path, folder: Path) -> int:
    """An open file of that name which no other process holds."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder} is being made by another process: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_still(handle, path):
            return handle
        os.close(handle)


def is_still(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
