"""Weights as safetensors files, in shards where they are large."""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.interop.hf_folder import INDEX

SHARD_SIZE = "5GB"


def write_weight_files(tensors: Mapping[str, Tensor], folder: Path, shard_size: str = SHARD_SIZE) -> list[str]:
    """Write tensors as model.safetensors, or as shards with their index, and return the files of tensors.

    Args:
        tensors: on the CPU, each in memory of its own.
        folder: where they go.
        shard_size: of the largest file, as in 5GB; a tensor that is larger has a file of its own.

    Raises:
        InputError: they cannot be written.
    """
    split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=shard_size)
    for name, members in split.filename_to_tensors.items():
        path = folder / name
        try:
            path.touch()
            mode = path.stat().st_mode  # the library lets nobody else read what it writes
            save_file({member: tensors[member] for member in members}, path, {"format": "pt"})
            path.chmod(mode)
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or first_line(error)
            raise InputError(f"{folder.parent} cannot be written: {why}") from error
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_atomically(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return sorted(split.filename_to_tensors)


def check_shard_size(shard_size: str) -> None:
    """Refuse what is no size above 0.

    Raises:
        InputError: says what a size is.
    """
    advice = f"--max_shard_size is {shard_size!r}: give a number above 0 and a unit, as in 500MB or 5GB"
    try:
        split_torch_state_dict_into_shards({}, max_shard_size=shard_size)
    except (ValueError, OverflowError) as error:  # the latter of an infinite one
        raise InputError(advice) from error
    if not float(shard_size.strip()[:-2]) > 0:
        raise InputError(advice)


def first_line(error: Exception) -> str:
    """The beginning of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
