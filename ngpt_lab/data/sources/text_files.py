"""The user's own files of text."""

import os
import re
from collections.abc import Iterator
from typing import Any

from ngpt_lab.data.sources.addresses import absolute, file_name, form, is_remote, matches
from ngpt_lab.data.sources.checks import Errors, checked_blocks
from ngpt_lab.data.sources.file_source import FileSource
from ngpt_lab.data.sources.opening import blocks, complaints
from ngpt_lab.data.sources.pieces import Piece, divide, whole
from ngpt_lab.data.sources.rows import csv_documents, json_documents
from ngpt_lab.data.sources.tables import arrow_documents, parquet_documents
from ngpt_lab.errors import InputError

COLUMN_READERS = {".jsonl": json_documents, ".csv": csv_documents}
TABLE_READERS = {".parquet": parquet_documents, ".arrow": arrow_documents}


class TextFiles(FileSource):
    """Files of .txt, .jsonl, .csv, .parquet or .arrow, plain or compressed as .gz, .zst or .xz.

    Documents stand in the order of the files' absolute paths. Without files of their own, validation and test are the
    last two twentieths of the bytes; with validation alone, test is its second half; with test alone, validation is
    the last twentieth of training.

    Args:
        files: Path, glob pattern (`**` goes into folders) or http(s) address of the training text, or a list of them.
        column: Which column of .jsonl, .csv, .parquet and .arrow files holds the text.
        validation: Files of validation, named like `files`.
        test: Files of test, named like `files`.
        separator: What stands between the documents of a .txt file; without it such a file is one document.
        errors: What is done about bytes that are zero or not UTF-8: "refuse" them, or "replace" them by U+FFFD.
    """

    def __init__(
        self,
        files: str | list[str],
        column: str = "text",
        validation: str | list[str] | None = None,
        test: str | list[str] | None = None,
        separator: str | None = None,
        errors: Errors = "refuse",
    ) -> None:
        super().__init__()
        named = {"files": files, "validation": validation, "test": test}
        self.patterns = {setting: _patterns(setting, value) for setting, value in named.items() if value is not None}
        self.column = column
        self.separator = separator
        self.errors = errors
        if separator == "":
            raise InputError("separator is empty: give the text between documents, or leave it out")

    @property
    def name(self) -> str:
        """A single file's name, or how many files there are."""
        names = [file_name(address) for addresses in self.files().values() for address in addresses]
        return names[0] if len(names) == 1 else f"{len(names)} text files"

    @property
    def folder_name(self) -> str:
        """See `TextSource`: how many files a pattern matches may change."""
        first = self.patterns["files"][0]
        return file_name(first if is_remote(first) else re.split(r"[*?[]", first)[0].rstrip(os.sep))

    def spec(self) -> dict[str, Any]:
        """See `TextSource`."""
        how = {"column": self.column, "separator": self.separator, "errors": self.errors}
        return {"class": "TextFiles", **self.patterns, **how}

    def files(self) -> dict[str, list[str]]:
        """See `FileSource`."""
        return {
            "train" if setting == "files" else setting: matches(patterns, setting)
            for setting, patterns in self.patterns.items()
        }

    def read(self, address: str) -> Iterator[Piece]:
        """See `FileSource`."""
        kind = form(address).format
        if kind in TABLE_READERS:
            return TABLE_READERS[kind](address, self.column, self.errors)
        if kind in COLUMN_READERS:
            return COLUMN_READERS[kind](blocks(address), address, self.column, self.errors)
        text = checked_blocks(blocks(address), address, self.errors)
        return divide(text, self.separator.encode()) if self.separator else whole(text)

    def known_size(self, address: str) -> int | None:
        """See `FileSource`."""
        as_it_lies = form(address) == (".txt", "") and not is_remote(address)
        if as_it_lies and self.separator is None and self.errors == "refuse":
            with complaints(address):
                return os.path.getsize(address) + 1
        return None


def _patterns(setting: str, patterns: str | list[str]) -> list[str]:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not patterns:
        raise InputError(f"{setting} is an empty list: name at least one file")
    return absolute(patterns)
