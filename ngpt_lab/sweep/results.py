"""results.csv, one row a run of a sweep, and tuning.csv, one row a trial: enough to redraw every table without the runs."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.columns import COLUMNS, MEASURED, PLANNED, cell, measured
from ngpt_lab.analysis.states import ENDED
from ngpt_lab.analysis.table_settings import TABLE_SETTINGS
from ngpt_lab.analysis.wording import short_key
from ngpt_lab.errors import InputError
from ngpt_lab.files import atomic_file, write_atomically
from ngpt_lab.sweep.claims import EXPIRY, is_dead, newest
from ngpt_lab.sweep.records import (
    METRICS,
    RECORD,
    newest_row,
    part,
    read_object,
    read_rows,
    state,
)

SWEEP = "sweep.json"
CLAIMS = "claims"
RESULTS = "results.csv"
TUNING = "tuning.csv"
_VARIED = ("condition", "point", "trial")

Row = dict[str, str]


def write_results(folder: Path) -> Path:
    """Write results.csv, and tuning.csv where the sweep has trials, from what the runs have left so far; returns its path.

    The file's time is the moment before the first run was looked at: a run.json older than that has not changed since
    (see `ended_rows`), by the clock of the file system, which several machines share.

    Raises:
        InputError: the folder holds no sweep.
    """
    sweep = read_sweep(folder)
    with atomic_file(folder / RESULTS) as file:
        began = os.stat(file.name).st_mtime_ns
        rows = result_rows(folder, sweep)
        file.write(_csv(columns(sweep), rows))
        file.flush()
        os.utime(file.name, ns=(began, began))
    if any(run.get("stage") == "tune" for run in sweep["runs"]):
        header = ["arm", "base", "seed", "budget", "lr", "val_loss", *_tuned(sweep)]
        write_atomically(folder / TUNING, _csv(header, _trials(folder, sweep, rows)))
    return folder / RESULTS


def read_sweep(folder: Path) -> dict[str, Any]:
    """The content of sweep.json.

    Raises:
        InputError: there is none that can be read.
    """
    sweep, problem = read_object(folder / SWEEP)
    runs = sweep.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) and isinstance(run.get("folder"), str) for run in runs):
        raise InputError(f"{folder / SWEEP} lists no runs{f' ({problem})' if problem else ''}: start the sweep again")
    return sweep


def read_results(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a CSV file, every cell as text; both empty where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row and None not in row.values()]
            return list(reader.fieldnames or ()), rows
    except (OSError, ValueError, csv.Error):
        return [], []


def columns(sweep: Mapping[str, Any]) -> list[str]:
    """The columns of results.csv."""
    return [*COLUMNS, *_settings_shown(sweep)]


def result_rows(folder: Path, sweep: Mapping[str, Any]) -> list[Row]:
    """The rows of results.csv, in the order of the plan."""
    known, claims = ended_rows(folder, sweep), newest(folder / CLAIMS)
    varied, shown = _keys(sweep["runs"], *_VARIED), _settings_shown(sweep)
    rows = []
    for run in sweep["runs"]:
        name = run["folder"]
        row = known.get(name) or _read_run(folder / "runs" / name, run, shown, claims.get(name))
        rows.append({**row, **_planned(run, varied)})
    return rows


def ended_rows(folder: Path, sweep: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of ended runs that still hold in the results.csv there is, by the name of the run's folder.

    A run.json that is not older than the rows may be that of a run trained again.
    """
    path = folder / RESULTS
    try:
        written = path.stat().st_mtime_ns  # before it is read: it may be replaced
    except OSError:
        return {}
    header, rows = read_results(path)
    if header != columns(sweep):
        return {}
    ended = {(row["name"], row["id"]): row for row in rows if row["status"] in ENDED}
    found = ((run["folder"], ended.get((cell(run.get("name")), cell(run.get("id"))))) for run in sweep["runs"])
    return {name: row for name, row in found if row and _is_older(folder / "runs" / name / RECORD, written)}


def _settings_shown(sweep: Mapping[str, Any]) -> list[str]:
    """The dotted keys that vary, then those that the tables show."""
    return list(dict.fromkeys([*_keys(sweep["runs"], *_VARIED), *TABLE_SETTINGS]))


def is_held(claim: Path | None) -> bool:
    """Whether a worker that lives holds a run by this claim, its newest."""
    return claim is not None and not is_dead(claim, EXPIRY)


def _is_older(path: Path, written: int) -> bool:
    try:
        return path.stat().st_mtime_ns < written
    except OSError:
        return False


def _planned(run: Mapping[str, Any], keys: Sequence[str]) -> Row:
    condition = "; ".join(f"{short_key(key, keys)}={cell(value)}" for key, value in part(run, "condition").items())
    return {column: condition if column == "condition" else cell(run.get(column)) for column in PLANNED}


def _read_run(place: Path, run: Mapping[str, Any], keys: Sequence[str], claim: Path | None) -> Row:
    """All cells of a run but the planned ones; measures of finished runs alone, because only those can be compared."""
    record, problem = read_object(place / RECORD)
    status, error = state(record, problem, lambda: is_held(claim))
    model = part(record, "model")
    done: Mapping[str, Any] = record
    measures: dict[str, Any] = {}
    if status == "finished":
        measures, error = _measures(place, record)
    elif status in ("running", "interrupted"):
        row = newest_row(place / METRICS)
        done = {"tokens": row.get("tokens"), "wall_time_s": row.get("time")}
    cells = {
        "status": status,
        "error": error,
        "tokens": done.get("tokens"),
        "steps": run.get("steps"),
        "parameters": model.get("parameters", run.get("parameters")),
        "flops_per_token": model.get("flops_per_token"),
        "wall_time_s": done.get("wall_time_s"),
        **dict.fromkeys(MEASURED),
        **measures,
        **_settings(run, record, keys),
    }
    return {name: cell(value) for name, value in cells.items()}


def _settings(run: Mapping[str, Any], record: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What a run has for each key: what the plan or the tuning says, else what it was trained with."""
    chosen = part(part(record, "sweep"), "chosen")
    known = part(record, "settings") | chosen | part(run, "condition") | part(run, "point") | part(run, "trial")
    return {key: known.get(key) for key in keys}


def _measures(place: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What a finished run measured, and what of it cannot be read."""
    rows, problem = read_rows(place / METRICS)
    return dict(measured(record, rows)), problem


def _trials(folder: Path, sweep: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """The rows of tuning.csv: each trial that ended."""
    keys, trials = _tuned(sweep), []
    for run, row in zip(sweep["runs"], rows, strict=True):
        if run.get("stage") == "tune" and row["status"] in ENDED:
            own = {name: row[name] for name in ("arm", "base", "seed", "budget")}
            loss = row["val/loss"] if row["status"] == "finished" else ""
            trials.append({**own, "lr": _learning_rate(folder, run), "val_loss": loss, **{key: row[key] for key in keys}})
    return trials


def _tuned(sweep: Mapping[str, Any]) -> list[str]:
    """The keys that tell trials apart: what is tried, and the condition it is tried under."""
    return _keys([run for run in sweep["runs"] if run.get("stage") == "tune"], "trial", "condition")


def _learning_rate(folder: Path, run: Mapping[str, Any]) -> str:
    """The learning rate of a trial, of its record where it is not what is tried."""
    tried = _rates(part(run, "trial"))
    record = {} if tried else read_object(folder / "runs" / run["folder"] / RECORD)[0]
    return cell(next(iter(tried or _rates(part(record, "settings"))), None))


def _rates(settings: Mapping[str, Any]) -> list[Any]:
    return [value for key, value in settings.items() if key.rpartition(".")[2] == "lr"]


def _keys(runs: Iterable[Mapping[str, Any]], *parts: str) -> list[str]:
    """The dotted keys under some entries of the runs, in the order in which they come."""
    return list(dict.fromkeys(key for name in parts for run in runs for key in part(run, name)))


def _csv(header: Sequence[str], rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
