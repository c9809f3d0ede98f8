"""What a run folder says, as far as it can be read: the run may be going on, or have been killed in the middle of a word."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.columns import finite
from ngpt_lab.analysis.states import problem_of, state_of

RECORD = "run.json"
METRICS = "metrics.jsonl"

_TAIL = 1 << 20
"""Bytes at the end of metrics.jsonl that hold the newest rows of any model."""


def read_object(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON object in a file, and what is wrong with the file; one of the two is empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except OSError as error:
        return {}, f"{path.name} cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return {}, f"{path.name} cannot be read (half-written?)"
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} holds no JSON object")


def read_rows(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of a metrics file that can be read, and what is wrong with the others."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        return [], f"{path.name} cannot be read ({error.strerror})"
    rows = [_row(line) for line in lines]
    broken = [str(number) for number, row in enumerate(rows, start=1) if not row]
    return [row for row in rows if row], f"{path.name} cannot be read in line {', '.join(broken)}" if broken else ""


def newest_row(path: Path) -> dict[str, Any]:
    """The newest row of a metrics file that may be growing, with train/loss of the newest row that has one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    last: dict[str, Any] = {}
    for row in filter(None, map(_row, reversed(lines))):
        if "train/loss" in row:
            return {**row, **last, "train/loss": row["train/loss"]}
        last = last or row
    return last


def _row(line: bytes) -> dict[str, Any]:
    """A row that says which step it is of; empty where the line holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) and number(row, "step") is not None else {}


def state(record: Mapping[str, Any], problem: str, is_alive: Callable[[], bool]) -> tuple[str, str]:
    """One of STATES, and the error or whatever else is to be said of it.

    `record` and `problem` are what `read_object` returns; `is_alive` tells whether somebody trains the run now.
    """
    if problem == f"{RECORD} is missing":
        return "waiting", ""
    if record.get("status") == "failed":
        error = str(record.get("error") or "its record does not say why")
        return "failed", error.encode("utf-8", "backslashreplace").decode()  # half a character cannot be written or shown
    if problem or record.get("status") == "running":
        return "running" if is_alive() else "interrupted", problem
    return state_of(record), problem_of(record) or ""


def modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def part(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A mapping within a record; empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number within a record."""
    return finite(record.get(key))
