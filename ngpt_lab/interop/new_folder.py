"""Writing a folder so that a crash never leaves half of one under its final name."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ngpt_lab.errors import InputError
from ngpt_lab.files import sync_folder, writing


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill that becomes `final` at the end: under a temporary name beside it, then renamed.

    Raises:
        InputError: `final` is in use, or cannot be written.
    """
    final = Path(os.path.abspath(final))
    if final.is_symlink() or (final.exists() and not (final.is_dir() and not any(final.iterdir()))):
        raise InputError(f"{final} is in use: choose another folder")
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    with writing(final):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(final):
            sync_folder(temporary)
            os.replace(temporary, final)  # an empty folder makes room
            sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
