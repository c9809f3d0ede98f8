"""Documents in a column of .jsonl and .csv files, a line at a time."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator

from ngpt_lab.data.sources.checks import Errors, checked_document, decoded
from ngpt_lab.data.sources.pieces import Piece
from ngpt_lab.errors import InputError

BYTE_ORDER_MARK = "\ufeff"


def json_documents(blocks: Iterable[bytes], address: str, column: str, errors: Errors) -> Iterator[Piece]:
    """The texts under the key `column` of one JSON object a line; null and empty texts are left out.

    Raises:
        InputError: names the file and the line.
    """
    for number, line in enumerate(_lines(blocks, address, errors), start=1):
        if not line.strip():
            continue
        where = f"{address}, line {number},"
        value = _field(line, where, column)
        if not isinstance(value, str | None):
            raise InputError(f"{where} has no text in {column!r} but {json.dumps(value)[:40]}: name a column of text")
        if value:
            yield Piece(checked_document(value, where, errors), True)


def csv_documents(blocks: Iterable[bytes], address: str, column: str, errors: Errors) -> Iterator[Piece]:
    """The texts in the column that the first row calls `column`; empty ones are left out.

    Raises:
        InputError: names the file and the line.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # csv's own limit is 128 KiB; one of more bits fails on Windows
    rows = csv.reader(_lines(blocks, address, errors), strict=True)
    try:
        names = next(rows, [])
        check_column(column, names, address)
        place = names.index(column)
        for row in rows:
            where = f"{address}, line {rows.line_num},"
            if row and len(row) <= place:
                raise InputError(f"{where} has {len(row)} values, and the column {column!r} is number {place + 1}")
            if row and row[place]:
                yield Piece(checked_document(row[place], where, errors), True)
    except csv.Error as error:
        raise InputError(f"{address}, line {rows.line_num}, is not CSV: {error}") from error


def check_column(column: str, names: Iterable[str], where: str) -> None:
    """Refuse a column that is not there.

    Raises:
        InputError: names the columns that are.
    """
    if column not in (names := list(names)):
        raise InputError(f"{where} has no column {column!r}: there is {', '.join(map(repr, names)) or 'none'}")


def _field(line: str, where: str, column: str) -> object:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a JSON object: each line must be one, as in {{{json.dumps(column)}: ...}}")
    check_column(column, row, where)
    return row[column]


def _lines(blocks: Iterable[bytes], address: str, errors: Errors) -> Iterator[str]:
    offset = 0
    for line in _byte_lines(blocks):
        text = decoded(line, offset, address, errors)
        yield text.removeprefix(BYTE_ORDER_MARK) if offset == 0 else text
        offset += len(line)


def _byte_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for line in ended:
            yield b"".join((*held, line, b"\n"))
            held = []
        held.append(rest)
    if last := b"".join(held):
        yield last
