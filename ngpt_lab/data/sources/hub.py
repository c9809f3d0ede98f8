"""A dataset of the Hugging Face hub, or a folder in the hub's own layout."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ngpt_lab.data.sources.card import check_card
from ngpt_lab.data.sources.checks import Errors
from ngpt_lab.data.sources.complaints import complaints
from ngpt_lab.data.sources.pieces import Piece, recut, whole
from ngpt_lab.data.sources.source import TextSource
from ngpt_lab.data.sources.stamps import changed_files, renewed_stamps, stamps
from ngpt_lab.data.sources.tables import ROWS, check_text_column, column_texts
from ngpt_lab.errors import InputError

HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)


class HubDataset(TextSource):
    """A column of text of a dataset of the hub.

    Validation and test that are not named are taken from what is: where only training is, its first `held_out` rows
    are validation, the next as many test, and training starts after them; where validation is named and test is not,
    validation's second half of rows is test; where test is named and validation is not, training's first `held_out`
    rows are validation. Rows without text count for nothing among documents. No code of a dataset is ever run.

    Args:
        path: The dataset's name on the hub, as in owner/name, or a folder in the hub's layout.
        name: The configuration, where the dataset has several.
        train: The dataset's split to train on.
        validation: The dataset's split to validate on.
        test: The dataset's split to test on.
        column: Which column holds the text.
        rows: Whether each row is one of the "documents", or all rows of a split are the "lines" of one document.
        held_out: Rows of training that are held out for each split that is not named.
        revision: The commit, tag or branch to read.
        errors: What is done about bytes that are zero or not UTF-8: "refuse" them, or "replace" them by U+FFFD.
        streaming: Whether rows are read as they are needed; otherwise the dataset is downloaded first.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        train: str = "train",
        validation: str | None = None,
        test: str | None = None,
        column: str = "text",
        rows: Literal["documents", "lines"] = "documents",
        held_out: int = 1000,
        revision: str | None = None,
        errors: Errors = "refuse",
        streaming: bool = True,
    ) -> None:
        self.is_local = os.path.isdir(os.path.expanduser(path))
        if not self.is_local and not HUB_NAME.fullmatch(path):
            raise InputError(f"{path} is neither a folder nor the name of a dataset, as in owner/name")
        if held_out < 1:
            raise InputError(f"held_out is {held_out}: it must be at least 1")
        self.path = os.path.abspath(os.path.expanduser(path)) if self.is_local else path
        self.config = name
        self.train = train
        self.named = {"validation": validation, "test": test}
        self.column = column
        self.rows = rows
        self.held_out = held_out
        self.revision = revision
        self.errors = errors
        self.streaming = streaming
        self._commit: str | None = None
        self._middles: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The dataset's name with its configuration."""
        name = os.path.basename(self.path) if self.is_local else self.path
        return f"{name} ({self.config})" if self.config else name

    def spec(self) -> dict[str, Any]:
        """See `TextSource`; `streaming` is no part of it, since the rows are the same."""
        what = {"path": self.path, "name": self.config, "revision": self.revision, "train": self.train, **self.named}
        how = {"column": self.column, "rows": self.rows, "held_out": self.held_out, "errors": self.errors}
        return {"class": "HubDataset", **what, **how}

    def pieces(self, split: str, skip: int = 0) -> Iterator[Piece]:
        """See `TextSource`."""
        texts = self._rows_of(split)
        if self.rows == "lines":
            # Some datasets keep the line ends, and some leave an empty row for an empty line.
            documents = whole(text if text.endswith(b"\n") else text + b"\n" for text in texts)
        else:
            documents = (Piece(text, True) for text in texts)
        return islice(recut(documents), skip, None)

    def state(self) -> dict[str, Any]:
        """See `TextSource`."""
        if self.is_local:
            return {"files": stamps(self._files())}
        return {"revision": self._resolved()}

    def changed(self, recorded: Mapping[str, Any]) -> str | None:
        """See `TextSource`; a hub that cannot be reached counts as unchanged."""
        if self.is_local:
            return changed_files(self._files(), recorded.get("files"))
        was = recorded.get("revision")
        try:
            now = self._resolved()
        except InputError:
            return None
        return None if was == now else f"{self.path} was at revision {was} and is at {now}"

    def renewed(self, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `TextSource`."""
        files = renewed_stamps(self._files(), recorded.get("files")) if self.is_local else None
        return files and {"files": files}

    def _resolved(self) -> str:
        """The commit that is read, asked for once: all splits are of the same."""
        from huggingface_hub import HfApi

        if self._commit is None:
            with self._complaints():
                self._commit = str(HfApi().dataset_info(self.path, revision=self.revision, timeout=30).sha)
        return self._commit

    def _revision(self) -> str | None:
        """What to read; where the hub cannot be reached, what was downloaded of the one that is named."""
        if self.is_local:
            return self.revision
        try:
            return self._resolved()
        except InputError:
            return self.revision

    def _rows_of(self, split: str) -> Iterator[bytes]:
        name, start, stop = self._place(split)
        texts = islice(self._texts(name), start, stop)
        if (first := next(texts, None)) is None:
            raise InputError(
                f"{self.name} has too few rows of text in split {name!r} to take {split} from row {start} on: "
                "name the splits that it has, or lower held_out"
            )
        yield first
        yield from texts

    def _place(self, split: str) -> tuple[str, int, int | None]:
        """The dataset's own split that one is taken from, and the rows of it."""
        validation = self.named["validation"]
        if split == "train":
            taken = 0 if validation else list(self.named.values()).count(None)
            return self.train, taken * self.held_out, None
        if validation and not self.named["test"]:
            middle = self._middle(validation)
            return (validation, 0, middle) if split == "validation" else (validation, middle, None)
        if name := self.named[split]:
            return name, 0, None
        start = 0 if split == "validation" else self.held_out
        return self.train, start, start + self.held_out

    def _middle(self, name: str) -> int:
        if name not in self._middles:
            self._middles[name] = (sum(1 for _ in self._texts(name)) + 1) // 2
        return self._middles[name]

    def _texts(self, name: str) -> Iterator[bytes]:
        texts = column_texts(self._tables(name), self.column, f"{self.name}, split {name!r}", self.errors)
        return texts if self.rows == "lines" else filter(None, texts)

    def _tables(self, name: str) -> Iterator[Any]:
        if self.is_local:
            with self._complaints():
                check_card(Path(self.path))
        with self._complaints():
            import datasets

            # It logs errors that it raises, some of them with a traceback of its own logging.
            datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
            dataset = datasets.load_dataset(
                self.path, self.config, split=name, streaming=self.streaming, revision=self._revision()
            )
            tables = dataset.with_format("arrow").iter(batch_size=ROWS)
            table = next(tables, None)
        if table is not None:
            check_text_column(table.schema, self.column, f"{self.name}, split {name!r}")
        while table is not None:
            yield table
            with self._complaints():
                table = next(tables, None)

    def _files(self) -> list[str]:
        files = (path for path in Path(self.path).rglob("*") if path.is_file())
        return sorted(str(path) for path in files if not path.relative_to(self.path).as_posix().startswith("."))

    def _complaints(self) -> AbstractContextManager[None]:
        return complaints(f"the dataset {self.name}")
