"""Writing files so that a crash never leaves half of one under its final name."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that becomes `path` at the end: under a temporary name in the same folder, synced, then renamed.

    Raises:
        InputError: it cannot be written, as on a full disk; what stood under `path` is as it was.
    """
    # Not the process's number, which is another's on another machine.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BufferedWriter(Writing(str(temporary), "wb"))
    try:
        with file:
            # What is read meanwhile is another file, of which this one's name would tell nothing.
            yield file
            with writing(path):
                file.flush()
                os.fsync(file.fileno())
        with writing(path):
            os.replace(temporary, path)
            sync_folder(path.parent)
    except WriteError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class WriteError(OSError):
    """An error of the file that is written, and of no other that is read meanwhile."""


class Writing(io.FileIO):
    """A file whose errors of writing are told from those of others."""

    def write(self, content: "ReadableBuffer", /) -> int:
        """See `io.FileIO`."""
        try:
            return super().write(content)
        except OSError as error:
            raise WriteError(error.errno, error.strerror) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong with the file system within is told as one sentence about `path`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong with the file system within is told as one sentence about `path`.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a loss of power, where the system can."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
