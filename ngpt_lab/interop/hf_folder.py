"""A Hugging Face model folder as it lies on the disk: nothing in it is executed or unpickled."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ngpt_lab.data.tokenizer_files import TOKENIZER_FILES
from ngpt_lab.errors import InputError
from ngpt_lab.files import reading

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's table.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        table = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__} where a table of fields belongs")
    return table


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        InputError: there is no such folder, it has none, that is not a table, or a file of it lies elsewhere.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give one that Hugging Face's save_pretrained wrote")
    check_links(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}: give a folder that Hugging Face's save_pretrained wrote")
    return read_json(folder / CONFIG)


def check_links(folder: Path) -> None:
    """Refuse a folder that takes in a file from elsewhere by a link: whoever made it may not have been able to read that file.

    The cache of the hub is no elsewhere, whose snapshots/ hold links into the blobs/ beside them.

    Raises:
        InputError: it has such a link.
    """
    whole = folder.resolve()
    own = [whole, *([whole.parents[1] / "blobs"] if whole.parent.name == "snapshots" else [])]
    for path in sorted(folder.iterdir()):
        read = path.name in (CONFIG, INDEX, GENERATION, *TOKENIZER_FILES) or path.suffix == ".safetensors"
        if read and path.is_symlink() and path.is_file() and not any(path.resolve().is_relative_to(place) for place in own):
            raise InputError(f"{path} is a link to {path.resolve()}, outside of its folder: put the file itself there")


class FolderTensors(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read from its file when its values are used, and takes no memory before.

    Args:
        folder: with one model.safetensors, or with shards and their index.

    Raises:
        InputError: no weights in safetensors, a missing, broken or truncated file, or an index that does not fit its shards.
    """

    def __init__(self, folder: Path) -> None:
        index = None if (folder / SINGLE).is_file() or not (folder / INDEX).is_file() else _index(folder / INDEX)
        if index is None and not (folder / SINGLE).is_file():
            raise _no_weights(folder)
        names = [SINGLE] if index is None else sorted(set(index.values()))
        self._opened = {name: _opened(folder / name) for name in names}
        self._file_of = {tensor: name for name, opened in self._opened.items() for tensor in opened.keys()}  # noqa: SIM118
        for tensor, name in (index or {}).items():
            if tensor not in self._opened[name].keys():  # noqa: SIM118
                raise InputError(f"{folder / INDEX} says that {tensor} is in {name}, which has no such tensor: copy both again")
            self._file_of[tensor] = name

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._opened[self._file_of[name]].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _index(path: Path) -> dict[str, str]:
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise InputError(f"{path} has no weight_map from tensors to their files: copy it again")
    for name in table.values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{path} names {name!r}, which is no safetensors file of its folder: only such are read")
    missing = sorted(name for name in set(table.values()) if not (path.parent / name).is_file())
    if missing:
        raise InputError(f"{path.parent} lacks {', '.join(missing)}, which {INDEX} names: copy what is missing")
    return table


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): copy it again") from error


def _no_weights(folder: Path) -> InputError:
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        return InputError(
            f"{folder} holds pickled weights alone ({', '.join(pickled[:3])}), which are not opened, for they can run code: "
            "save the model with safetensors"
        )
    return InputError(f"{folder} has neither {SINGLE} nor {INDEX}: give a folder that holds the weights too")
