"""Writing files so that a crash never leaves half of one under its final name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that becomes `path` at the end: under a temporary name in the same folder, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number, which is another's on another machine.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` as `atomic_file` does."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
