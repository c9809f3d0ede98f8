"""Where labelled examples come from: datasets of the Hugging Face hub, saved datasets and files."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngpt_lab.data.sources.addresses import absolute, form, matches
from ngpt_lab.data.sources.card import check_card
from ngpt_lab.data.sources.complaints import complaints
from ngpt_lab.data.sources.hub import HUB_NAME
from ngpt_lab.data.sources.rows import check_column
from ngpt_lab.data.sources.saved import SavedDataset
from ngpt_lab.data.tasks.rows import Rows
from ngpt_lab.errors import InputError

BUILDERS = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
# pandas takes the text "NA" for nothing.
OPTIONS: dict[str, dict[str, Any]] = {"csv": {"keep_default_na": False}}


class Table(ABC):
    """Rows in columns, by split; no code of a dataset is ever run."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For records and messages."""

    def prepare(self) -> None:  # noqa: B027  (most have nothing to do)
        """Bring it onto this machine; one process of each does so."""

    @abstractmethod
    def place(self, split: str) -> str | None:
        """What a split is read from, for messages; None where there is no such split."""

    @abstractmethod
    def dataset(self, split: str) -> Any:
        """A split as the datasets library reads it."""

    def rows(self, split: str, columns: Sequence[str]) -> Rows | None:
        """Some columns of a split; None where there is no such split.

        Raises:
            InputError: it cannot be read, or lacks a column.
        """
        where = self.place(split)
        if where is None:
            return None
        with complaints(where):
            dataset = self.dataset(split)
            features = dataset.features or {}
            known = set(columns) <= set(features)
            rows = list(dataset.select_columns(list(columns)) if known else dataset)
        # What is read as it comes tells its columns only with its rows.
        for column in () if known else columns:
            check_column(column, features or next(iter(rows), dict.fromkeys(columns)), where)
        return Rows(
            where,
            {column: [row[column] for row in rows] for column in columns},
            {column: found for column in columns if (found := class_names(features.get(column)))},
            np.arange(len(rows)),
        )


class HubTable(Table):
    """A dataset of the hub, which is downloaded once, or a folder in the hub's layout.

    Args:
        path: The dataset's name on the hub, as in owner/name, or a folder in the hub's layout.
        name: The configuration, where the dataset has several.
        train: The dataset's split to train on.
        validation: The dataset's split to validate on; where none is named a tenth of training is held out.
        test: The dataset's split to test on.
        revision: The commit, tag or branch to read.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        train: str = "train",
        validation: str | None = None,
        test: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.is_local = os.path.isdir(os.path.expanduser(path))
        if not self.is_local and not HUB_NAME.fullmatch(path):
            raise InputError(f"{path} is neither a folder nor the name of a dataset, as in owner/name")
        self.path = os.path.abspath(os.path.expanduser(path)) if self.is_local else path
        self.config, self.revision = name, revision
        self.named = {"train": train, "validation": validation, "test": test}

    @property
    def name(self) -> str:
        """The dataset's name with its configuration."""
        return f"{self.path} ({self.config})" if self.config else self.path

    def prepare(self) -> None:
        """See `Table`."""
        if not self.is_local:
            with complaints(self.name):
                self.dataset("train")

    def place(self, split: str) -> str | None:
        """See `Table`."""
        return self.named[split] and f"{self.name}, split {self.named[split]!r}"

    def dataset(self, split: str) -> Any:
        """See `Table`."""
        import datasets

        if self.is_local:
            check_card(Path(self.path))
        # What lies on this machine needs no second copy in the library's cache.
        return datasets.load_dataset(
            self.path, self.config, split=self.named[split], revision=self.revision, streaming=self.is_local
        )


class SavedTable(Table):
    """A Dataset or DatasetDict as `datasets.save_to_disk` left it.

    A DatasetDict's splits are train, validation and test; where there is no validation a tenth of training is held out.

    Args:
        folder: The folder that was saved to.
    """

    def __init__(self, folder: str) -> None:
        self.saved = SavedDataset(folder)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.saved.folder)

    def place(self, split: str) -> str | None:
        """See `Table`."""
        return f"{self.name}, split {split!r}" if split in self.saved.files() else None

    def dataset(self, split: str) -> Any:
        """See `Table`."""
        import datasets

        return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in self.saved.files()[split]])


class TableFiles(Table):
    """Files of .jsonl, .csv, .parquet or .arrow.

    Args:
        files: Path, glob pattern (`**` goes into folders) or http(s) address of the training rows, or a list of them.
        validation: Files of validation, named like `files`; without them a tenth of training is held out.
        test: Files of test, named like `files`.
    """

    def __init__(
        self, files: str | list[str], validation: str | list[str] | None = None, test: str | list[str] | None = None
    ) -> None:
        named = {"train": files, "validation": validation, "test": test}
        self.patterns = {
            split: absolute([patterns] if isinstance(patterns, str) else patterns)
            for split, patterns in named.items()
            if patterns is not None
        }

    @property
    def name(self) -> str:
        """The training files as they are named."""
        return ", ".join(self.patterns["train"])

    def place(self, split: str) -> str | None:
        """See `Table`; the files, where they are few."""
        return f"{split} ({', '.join(self.patterns[split])})" if split in self.patterns else None

    def dataset(self, split: str) -> Any:
        """See `Table`."""
        import datasets

        files = matches(self.patterns[split], "files" if split == "train" else split)
        kinds = sorted({form(file).format for file in files})
        if len(kinds) != 1 or kinds[0] not in BUILDERS:
            raise InputError(f"{split} has files of {', '.join(kinds)}: give files of one kind, {', '.join(BUILDERS)}")
        for file in files:
            if os.path.exists(file) and not os.path.getsize(file):
                raise InputError(f"{file} is empty: leave it out or put rows into it")
        kind = BUILDERS[kinds[0]]
        return datasets.load_dataset(kind, data_files=files, split="train", streaming=True, **OPTIONS.get(kind, {}))


def class_names(feature: Any) -> tuple[str, ...]:
    """The names of the classes that a column, or the lists in it, declares; empty where it declares none."""
    while feature is not None and not hasattr(feature, "names"):
        feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return tuple(feature.names) if feature is not None else ()
