"""Checkpoints that are folders, to which every process writes its pieces (torch.distributed.checkpoint), for any layout.

Beside torch's own files a folder holds outline.pt: the checkpoint with tensors that have a shape and no numbers in the place of
those that lie in the other files, and each file's size and checksum. It is whole when it has its name.
"""

import io
import os
import pickle
import secrets
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from ngpt_lab.errors import InputError
from ngpt_lab.files import sync_folder, writing
from ngpt_lab.training.checkpoints import OUTLINE, BrokenCheckpointError, read, reading_checkpoint, take_name, write
from ngpt_lab.training.parallel.together import first_alone, in_company, together

PARTS = ("state_dict", "optimizer_states")
FILES = "files"
# All that torch's own index is made of.
ALLOWED = {
    *(("torch.distributed.checkpoint.metadata", name) for name in ("Metadata", "TensorStorageMetadata", "TensorProperties")),
    *(("torch.distributed.checkpoint.metadata", name) for name in ("ChunkStorageMetadata", "MetadataIndex", "StorageMeta")),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    *(("torch.distributed.checkpoint.filesystem", name) for name in ("_StorageInfo", "_StoragePrefix")),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *((module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
}


class Index(pickle.Unpickler):
    """Reads torch's index of a folder, which is a pickle, and makes nothing but what such an index is made of."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler`."""
        found = super().find_class(module, name) if (module, name) in ALLOWED or module == "torch" else None
        if (module, name) in ALLOWED or isinstance(found, torch.dtype):
            return found
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


class Reader(FileSystemReader):
    """torch's reader of a folder, which unpickles no code.

    Raises:
        UnpicklingError: the folder's index holds more than an index does.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # At once: an error here would be told as torch's own.
        self.index: Metadata = Index(io.BytesIO((path / ".metadata").read_bytes())).load()

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """See `FileSystemReader`."""
        self.index.storage_meta = self.index.storage_meta or StorageMeta()
        self.index.storage_meta.load_id = self.load_id
        return self.index


def write_folder(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint; every process calls it, with its pieces.

    Raises:
        InputError: it cannot be written; on every process.
    """
    temporary = path.with_name(agreed(f".{path.name}.{secrets.token_hex(4)}.tmp"))
    tensors: dict[str, Tensor] = {}
    outline = apart(checkpoint, (), tensors)
    try:
        files = {name: numbers for each in together(lambda: pieces(tensors, temporary, path)) for name, numbers in each.items()}
        first_alone(lambda: finish({**outline, FILES: files}, temporary, path))
    except Exception:
        if dist.get_rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def pieces(tensors: dict[str, Tensor], temporary: Path, path: Path) -> dict[str, list[int]]:
    """Write this process's pieces of what is to become `path`; the checksums of its files."""
    with writing(path):
        try:
            with quiet():
                save(tensors, storage_writer=FileSystemWriter(temporary))
        except CheckpointException as error:  # on every process
            told = cause(error)
            raise InputError(f"{path} cannot be written: {getattr(told, 'strerror', None) or told}") from error
        return checksums(temporary, f"__{dist.get_rank()}_*")


def finish(outline: dict[str, Any], temporary: Path, path: Path) -> None:
    """Write the outline, see that all is on the disk, and give the folder its name."""
    with writing(path):
        outline[FILES] |= checksums(temporary, ".metadata")
        with (temporary / OUTLINE).open("wb") as file:
            write(outline, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(temporary)
        take_name(temporary, path)


def apart(tree: Any, at: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    """A checkpoint without the numbers of its large tensors, which go to `tensors` under the names of their places."""
    if isinstance(tree, Tensor):
        if at[0] not in PARTS and not isinstance(tree, DTensor):
            return tree.cpu()
        tensors["/".join(at)] = tree.detach()
        return torch.empty(tree.shape, dtype=tree.dtype, device="meta")
    if isinstance(tree, Mapping):
        return {key: apart(value, (*at, str(key)), tensors) for key, value in tree.items()}
    return [apart(value, (*at, str(key)), tensors) for key, value in enumerate(tree)] if isinstance(tree, list) else tree


def cause(error: CheckpointException) -> BaseException:
    """What torch's error of saving or loading is about: the first process's it tells of."""
    failure: BaseException = next(iter(error.failures.values()))[0]
    return failure


def outline(path: Path) -> dict[str, Any]:
    """A checkpoint whose weights and optimizer states have shapes and no numbers.

    Raises:
        InputError: it cannot be read.
        BrokenCheckpointError: it is not as it was written.
    """
    return verified(path, lambda files: verify_folder(path, files))


def outline_together(path: Path) -> dict[str, Any]:
    """As `outline`; every process calls it, and verifies its share of the files."""
    return verified(path, lambda files: together(lambda: verify_folder(path, share(files))))


def verified(path: Path, verify: Callable[[dict[str, list[int]]], object]) -> dict[str, Any]:
    """An outline, once `verify` has passed the files it names."""
    tree = read(path / OUTLINE)
    verify(listed(path, tree))
    return {key: value if key in PARTS else filled(value, (key,), path) for key, value in tree.items() if key != FILES}


def whole_checkpoint(path: Path, empty: Callable[..., Tensor] = torch.empty) -> dict[str, Any]:
    """A checkpoint with all its numbers, read by this process alone into what `empty` gives; errors as those of `outline`."""
    tree = outline(path)
    return {key: filled(value, (key,), path, empty) for key, value in tree.items()}


def filled(tree: Any, at: tuple[str, ...], path: Path, empty: Callable[..., Tensor] = torch.empty) -> Any:
    """A part of a checkpoint with the numbers of its tensors."""
    missing: dict[str, Tensor] = {}
    tree = opened(tree, at, missing, empty)
    if missing:
        read_into(path, missing)
    return tree


def opened(tree: Any, at: tuple[str, ...], missing: dict[str, Tensor], empty: Callable[..., Tensor]) -> Any:
    """A part of a checkpoint with room for numbers where it has none; the rooms go to `missing` by their places."""
    if isinstance(tree, Tensor) and tree.is_meta:
        return missing.setdefault("/".join(at), empty(tree.shape, dtype=tree.dtype))
    if isinstance(tree, Mapping):
        return {key: opened(value, (*at, str(key)), missing, empty) for key, value in tree.items()}
    if isinstance(tree, list):
        return [opened(value, (*at, str(key)), missing, empty) for key, value in enumerate(tree)]
    return tree


def read_into(path: Path, tensors: dict[str, Tensor]) -> None:
    """Read tensors, or the pieces of them that this process has, by the names of their places.

    Raises:
        InputError: the folder cannot be read now.
        BrokenCheckpointError: it does not hold them.
    """
    with reading_checkpoint(path), quiet():
        try:
            load(tensors, storage_reader=Reader(path), no_dist=True)
        except CheckpointException as error:
            raise cause(error) from error


def checksums(folder: Path, pattern: str) -> dict[str, list[int]]:
    """Size and CRC-32 of each file of a name."""
    return {file.name: [file.stat().st_size, crc(file)] for file in sorted(folder.glob(pattern))}


def crc(path: Path) -> int:
    """A file's CRC-32."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def listed(path: Path, tree: Any) -> dict[str, list[int]]:
    """The files that an outline names, each with its size and checksum.

    Raises:
        BrokenCheckpointError: it is no outline.
    """
    files = tree.get(FILES) if isinstance(tree, Mapping) else None
    if not isinstance(files, Mapping) or ".metadata" not in files or not all(starmap(is_summed, files.items())):
        raise BrokenCheckpointError(f"{path} is not a checkpoint that can be read: its {OUTLINE} does not tell its files")
    return dict(files)


def is_summed(name: Any, numbers: Any) -> bool:
    """Whether an entry of an outline is a file's name with its size and checksum."""
    is_pair = isinstance(numbers, list | tuple) and len(numbers) == 2 and all(isinstance(number, int) for number in numbers)
    return isinstance(name, str) and Path(name).name == name and is_pair


def share(files: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """Those files that are this process's to verify."""
    every, at = (dist.get_world_size(), dist.get_rank()) if in_company() else (1, 0)
    return {name: files[name] for name in sorted(files)[at::every]}


def verify_folder(path: Path, files: Mapping[str, list[int]]) -> None:
    """Compare files of a folder with their checksums.

    Raises:
        InputError: one cannot be read now.
        BrokenCheckpointError: one is missing or broken.
    """
    for name, (size, value) in files.items():
        file = path / name
        with reading_checkpoint(path):
            sound = file.is_file() and file.stat().st_size == size and crc(file) == value
        if not sound:
            raise BrokenCheckpointError(f"{path} is not a checkpoint that can be read: its {name} is missing or broken")


def agreed(value: Any) -> Any:
    """What the first process says, for all."""
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warning that a process reads alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
