"""One row a run, the same from results.csv as from run folders: all that a table needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.columns import COLUMNS, COUNTS, MEASURED, STAGES, cell
from ngpt_lab.analysis.runs import Run, sweep_labels
from ngpt_lab.analysis.states import STATES, state_of
from ngpt_lab.analysis.table_settings import TABLE_SETTINGS
from ngpt_lab.analysis.wording import short_key
from ngpt_lab.errors import InputError

_TEXTS = ("stage", "name", "id", "base", "ablation", "arm", "condition", "status", "error")
_WHOLE = ("budget", "seed")
_NUMBERS = ("wall_time_s", *MEASURED)


def read_results(path: Path) -> pd.DataFrame:
    """The rows of a sweep's results.csv: `COLUMNS`, typed, then a column for each dotted key.

    Text that is missing is "", any other value NaN; budget and seed are whole numbers, the other counts Int64.

    Raises:
        InputError: names the file and the column or value that is wrong.
    """
    try:
        rows = pd.read_csv(path, dtype="str", keep_default_na=False)
        _check_header(path, rows.columns)
        typed = {column: _typed(rows[column]) for column in rows}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the results.csv of a sweep.") from error
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a sweep's results ({str(error).splitlines()[0]}).") from error
    frame = pd.DataFrame(typed)
    _check_values(path, frame)
    return frame[[*COLUMNS, *(column for column in frame if column not in COLUMNS)]]


def _typed(column: pd.Series[str]) -> pd.Series[Any]:
    """A column of text as what it holds; numbers by Python's own float, which reads back exactly what was written."""
    if column.name in _TEXTS:
        return column
    if column.name in _WHOLE:
        return column.map(int).astype("int64")
    if column.name not in (*COUNTS, *_NUMBERS) and not all(_is_number(cell) for cell in column):
        return column.replace("", None)
    numbers = pd.Series([float(cell or "nan") for cell in column], dtype="float64")
    return numbers.astype("Int64") if column.name in COUNTS else numbers


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _check_header(path: Path, header: Iterable[str]) -> None:
    if missing := [column for column in COLUMNS if column not in header]:
        raise InputError(f"{path} has no column {missing[0]!r}: give the results.csv of a sweep.")
    if unknown := [column for column in header if column not in COLUMNS and "." not in column]:
        raise InputError(f"{path} has the column {unknown[0]!r}, which no sweep writes: remove it or give another file.")


def _check_values(path: Path, rows: pd.DataFrame) -> None:
    for column, allowed in (("stage", STAGES), ("status", STATES)):
        if strange := set(rows[column]) - set(allowed):
            raise InputError(f"{path} has the {column} {min(strange)!r}: it must be one of {', '.join(allowed)}.")
    finals = rows[rows["stage"] == "final"]
    twice = finals[finals.duplicated(["condition", "arm", "budget", "seed"])]
    if not twice.empty:
        first = twice.iloc[0]
        raise InputError(f"{path} has two rows of {first['arm']}, {first['budget']} tokens, seed {first['seed']}: leave one.")


def rows_of_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """The same rows from run folders, with every setting of the runs that a table shows."""
    rows = pd.DataFrame([result_row(run) for run in runs])
    columns = [*COLUMNS, *(column for column in rows.columns if column not in COLUMNS)]
    return rows.reindex(columns=columns).astype(dict.fromkeys(COUNTS, "Int64"))


def result_row(run: Run) -> dict[str, Any]:
    """One run as a row: `COLUMNS`, and the settings among `TABLE_SETTINGS` that it has."""
    labels = sweep_labels(run.record)
    row: dict[str, Any] = {
        "stage": labels.get("stage", "final"),
        "name": run.folder.resolve().name,
        "id": str(labels.get("id", "")),
        "base": labels.get("base", run.arm),
        "ablation": labels.get("ablation", ""),
        "arm": run.arm,
        "condition": condition_text(run.condition),
        "budget": run.budget,
        "seed": run.seed,
        "status": state_of(run.record),
        "error": run.problem or "",
    }
    return row | _numbers(run) | {key: _cell(run.settings[key]) for key in TABLE_SETTINGS if key in run.settings}


def _numbers(run: Run) -> dict[str, Any]:
    """What a run says of itself: the columns of `COLUMNS` from tokens on, NaN or None where it does not say."""
    counts = {
        "tokens": run.tokens,
        "steps": run.record.get("steps"),
        "parameters": run.model["parameters"],
        "flops_per_token": run.model.get("flops_per_token"),
        "wall_time_s": run.record.get("wall_time_s", nan),
    }
    return counts | {name: nan if (value := run.measures.get(name)) is None else value for name in MEASURED}


def condition_text(condition: Mapping[str, Any]) -> str:
    """A condition as one cell: "seq_len=256; lr=0.1"."""
    return "; ".join(f"{short_key(key, condition)}={cell(value)}" for key, value in condition.items())


def by_condition(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each condition with its rows, seq_len=256 before seq_len=1024; the order does not hang on that of `rows`."""
    ordered = rows.sort_values(["arm", "budget", "seed"])
    return sorted(((str(name), own) for name, own in ordered.groupby("condition")), key=lambda pair: _natural(pair[0]))


def _natural(text: str) -> list[tuple[float, str]]:
    parts = re.findall(r"\d+\.?\d*(?:e-?\d+)?|\D+", text)
    return [(float(part), "") if part[0].isdigit() else (inf, part) for part in parts]


def final_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of the final stage, which alone are compared."""
    return rows[(rows["stage"] == "final") & (rows["status"] == "finished")].reset_index(drop=True)


def _cell(value: Any) -> Any:
    """A setting as results.csv has it."""
    return json.dumps(value) if isinstance(value, (bool, list, tuple, Mapping)) else value
