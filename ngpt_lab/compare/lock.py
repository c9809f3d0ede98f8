"""One `compare` at a time in a folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ngpt_lab.errors import InputError

LOCK = "compare.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is missing, for the time within; a dead process's lock is taken over.

    Raises:
        InputError: another process holds it, or there can be no such folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        take(folder / LOCK)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another --out") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)


def take(path: Path) -> None:
    """Make the lock this process's.

    Raises:
        InputError: another process holds it.
    """
    if create(path):
        return
    holder = holder_of(path)
    in_use = InputError(
        f"{path.parent} is in use by another ngpt-lab compare (process {holder or 'unknown'}): wait for it, or choose "
        f"another --out; if there is no such process, remove {path}"
    )
    # A dead process's lock is claimed before it is replaced: of two who find it, the second would replace the first's.
    claim = path.with_name(f"{path.name}.{holder}")
    if holder is None or is_alive(holder) or not create(claim):
        raise in_use
    try:
        if holder_of(path) != holder:
            raise in_use
        path.unlink()
        if not create(path):
            raise in_use
    finally:
        claim.unlink()


def create(path: Path) -> bool:
    """Make a file that holds this process's number; False where the file is there already."""
    try:
        with path.open("x") as file:  # O_CREAT | O_EXCL
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def holder_of(path: Path) -> int | None:
    """The process named in a lock; None where there is none yet, or none any more."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def is_alive(process: int) -> bool:
    """Whether another process of that number runs; where that cannot be told, it does."""
    if process == os.getpid():  # numbers come again, in a container at once
        return False
    if sys.platform == "win32":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
