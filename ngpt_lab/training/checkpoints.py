"""Checkpoint files: never half-written, told when they are broken, and never unpickling code."""

import errno
import os
import pickle
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ngpt_lab.errors import InputError
from ngpt_lab.files import atomic_file, sync_folder, writing

FOLDER = "checkpoints"
LAST = "last.ckpt"
OUTLINE = "outline.pt"
NAME = re.compile(r"step-(\d{6,})\.ckpt")
# What torch's own errors say where the machine has no memory or no more files to give.
OF_THE_MACHINE = ("unable to open file", "unable to mmap", "can't allocate memory")


class BrokenCheckpointError(InputError):
    """A file that could be read, and is no checkpoint or not as it was written."""


def step_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run's folder."""
    return folder / FOLDER / f"step-{step:06d}.ckpt"


def step_files(folder: Path) -> dict[int, Path]:
    """The checkpoints in a run's folder by their step, in the order of the steps."""
    found = {int(name[1]): path for path in (folder / FOLDER).glob("step-*.ckpt") if (name := NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def is_folder(path: Path) -> bool:
    """Whether a checkpoint is a folder to which every process wrote its pieces.

    Raises:
        InputError: that cannot be read now.
    """
    with reading_checkpoint(path):
        return (path / OUTLINE).is_file()


def remove(path: Path) -> None:
    """Take away a checkpoint, of either form, or what was to become one; at once, so that no half of it has a name."""
    if path.is_dir():
        unnamed = path if path.name.endswith(".tmp") else aside(path)
        os.replace(path, unnamed)
        shutil.rmtree(unnamed)
    else:
        path.unlink(missing_ok=True)


def aside(path: Path) -> Path:
    """A name beside a checkpoint's, of what is not one yet or not any more."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def take_name(made: Path, path: Path) -> None:
    """Give a finished checkpoint its name; one of either form that had it goes when the new one has it.

    Raises:
        OSError: the file system refuses; the one before is as it was.
    """
    before = aside(path) if path.exists() else None
    if before is not None:
        os.replace(path, before)
    try:
        os.replace(made, path)
    except OSError:
        if before is not None:
            os.replace(before, path)
        raise
    sync_folder(path.parent)
    if before is not None:
        remove(before)


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name in the checkpoint's own folder, then renames; reads tensors and plain values alone."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """See `CheckpointIO`.

        Raises:
            InputError: it cannot be written, as on a full disk.
        """
        path = Path(path)
        made = aside(path) if is_folder(path) else path  # no file can be renamed to a folder
        with atomic_file(made) as file:
            write(checkpoint, file)
        if made != path:
            with writing(path):
                take_name(made, path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `CheckpointIO`; weights alone are enough for lightning to evaluate, but for its version.

        Raises:
            InputError: there is no such file, or it cannot be read.
            BrokenCheckpointError: it is no checkpoint, or not as it was written.
        """
        checkpoint = load(Path(path), map_location or "cpu")
        if isinstance(checkpoint, dict):
            checkpoint.setdefault("pytorch-lightning_version", lightning.__version__)
        return checkpoint


def write(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    """Write a checkpoint to an open file.

    Raises:
        OSError: it cannot be written, which torch follows with an error about the archive that is not whole.
    """
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load(path: Path, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """What a checkpoint holds, tensors and plain values alone; with `mmap` the tensors of a file are read when they are used.

    Raises:
        InputError: see `read`.
        BrokenCheckpointError: see `read`.
    """
    if is_folder(path):
        from ngpt_lab.training.parallel.folders import whole_checkpoint  # slow to import, and rarely needed

        return whole_checkpoint(path)
    return read(path, map_location, mmap)


def outline(path: Path) -> Any:
    """What a checkpoint holds, of a folder with tensors that have shapes and no numbers; errors as those of `read`."""
    if is_folder(path):
        from ngpt_lab.training.parallel.folders import outline as outline_of

        return outline_of(path)
    return read(path, mmap=True)


def read(path: Path, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """What a checkpoint's file holds.

    Raises:
        InputError: there is no such file, or it cannot be read, as where the disk fails, which tells nothing of what it holds.
        BrokenCheckpointError: it is no checkpoint, or not as it was written.
    """
    with reading_checkpoint(path):
        if path.is_dir():
            raise BrokenCheckpointError(f"{path} is not a checkpoint that can be read: it is a folder without {OUTLINE}")
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        verify(path)
        try:
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            told = "it holds more than tensors and plain values, and is not opened"
            raise BrokenCheckpointError(f"{path} is not a checkpoint that can be read: {told}") from error


@contextmanager
def reading_checkpoint(path: Path) -> Iterator[None]:
    """What goes wrong within is told as one sentence about the checkpoint `path`, and whether it is the checkpoint's fault.

    Raises:
        InputError: it cannot be read now.
        BrokenCheckpointError: it is not as it was written.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        told = (str(error) or type(error).__name__).splitlines()[0]
        if is_of_the_machine(error):
            told = getattr(error, "strerror", None) or told
            raise InputError(f"{path} cannot be read now ({told}): try again, or name another checkpoint") from error
        raise BrokenCheckpointError(f"{path} is not a checkpoint that can be read: {told}") from error


def is_of_the_machine(error: Exception) -> bool:
    """Whether reading failed for the machine's sake and not for what the file holds."""
    if isinstance(error, OSError):
        return error.errno != errno.EINVAL  # what an archive that points before its beginning leads to
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(told in str(error) for told in OF_THE_MACHINE)


def verify(path: Path) -> None:
    """Compare every record of a checkpoint with its checksum.

    torch writes a zip archive that stores records as they are, each with its CRC-32. A record that is compressed, or that
    says it is larger than the room it takes, was written by something else: reading it could take any amount of memory. One
    whose attributes have changed may pass for a folder, which torch reads as whatever is in memory.

    Raises:
        ValueError: a record is broken or not stored as it is.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if not all(map(is_plain, records)) or sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are not stored as torch stores them")
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"its record {broken} is broken")


def is_plain(record: zipfile.ZipInfo) -> bool:
    """Whether a record of an archive is stored as torch stores it."""
    stored = record.compress_type == zipfile.ZIP_STORED and record.file_size == record.compress_size
    return stored and record.external_attr == 0


def check_shapes(module: torch.nn.Module, checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint whose weights are not those of `module`.

    Raises:
        InputError: names the file and the first weight that is missing, extra or of another shape.
    """
    have = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    want = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{path} does not fit the model: {name} is {have.get(name, 'absent')} in the file and "
                f"{want.get(name, 'absent')} in the model; use the config the run was made with"
            )
