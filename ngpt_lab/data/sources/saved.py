"""A folder that `datasets.save_to_disk` made."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ngpt_lab.data.sources.checks import Errors
from ngpt_lab.data.sources.file_source import FileSource
from ngpt_lab.data.sources.opening import complaints
from ngpt_lab.data.sources.pieces import Piece
from ngpt_lab.data.sources.source import SPLITS
from ngpt_lab.data.sources.tables import arrow_documents
from ngpt_lab.errors import InputError


class SavedDataset(FileSource):
    """A Dataset or DatasetDict as `datasets.save_to_disk` left it.

    A DatasetDict's splits train, validation and test are used as they are, and those that it lacks are cut as
    `TextFiles` cuts them; a Dataset is training text alone.

    Args:
        folder: The folder that was saved to.
        column: Which column holds the text.
        errors: What is done about bytes that are zero or not UTF-8: "refuse" them, or "replace" them by U+FFFD.
    """

    def __init__(self, folder: str, column: str = "text", errors: Errors = "refuse") -> None:
        super().__init__()
        self.folder = Path(os.path.abspath(os.path.expanduser(folder)))
        self.column = column
        self.errors = errors

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def spec(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"class": "SavedDataset", "folder": str(self.folder), "column": self.column, "errors": self.errors}

    def files(self) -> dict[str, list[str]]:
        """See `FileSource`."""
        if not (self.folder / "dataset_dict.json").is_file():
            return {"train": self._data_files(self.folder)}
        names = self._names("dataset_dict.json", "splits")
        if "train" not in names:
            raise InputError(f"{self.folder} has no split 'train': there is {', '.join(map(repr, names)) or 'none'}")
        return {name: self._data_files(self.folder / name) for name in SPLITS if name in names}

    def read(self, address: str) -> Iterator[Piece]:
        """See `FileSource`."""
        return arrow_documents(address, self.column, self.errors)

    def _data_files(self, folder: Path) -> list[str]:
        names = self._names(folder / "state.json", "_data_files")
        if any(os.path.basename(name) != name or not name.endswith(".arrow") for name in names):
            raise InputError(f"{folder / 'state.json'} names files that are not .arrow files of its folder: save it again")
        return [str(folder / name) for name in names]

    def _names(self, path: str | Path, key: str) -> list[str]:
        path = self.folder / path
        if not path.is_file():
            raise InputError(f"{path.parent} is not a dataset made by save_to_disk: there is no {path.name} in it")
        try:
            with complaints(str(path)):
                listed = json.loads(path.read_bytes())[key]
            return [entry["filename"] if key == "_data_files" else str(entry) for entry in listed]
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path} is not as save_to_disk writes it: save the dataset again") from error
