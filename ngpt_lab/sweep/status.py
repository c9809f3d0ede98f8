"""`ngpt-lab status`: how far the runs in a folder have come, without loading torch."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ngpt_lab.analysis.states import STATES
from ngpt_lab.analysis.wording import duration
from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import newest
from ngpt_lab.sweep.records import (
    METRICS,
    RECORD,
    modified,
    newest_row,
    number,
    part,
    read_object,
    state,
)
from ngpt_lab.sweep.results import CLAIMS, SWEEP, Row, ended_rows, is_held, read_sweep

COMPARISON = "compare.json"
MOST_ROWS = 40
"""More runs than these are not listed: see `most_urgent`."""
ERROR_LENGTH = 80
WIDE = 160
SILENCE_S = 120
"""Seconds after which a run that writes nothing counts as interrupted."""
COLOURS = {
    "finished": "green",
    "failed": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "waiting": "dim",
    "imported": "blue",
}


@dataclass(frozen=True)
class RunState:
    """How far a run has come; None and "" for what is not known. `loss`: final val/loss, else the latest train/loss."""

    name: str
    state: str
    step: int | None = None
    steps: int | None = None
    tokens: int | None = None
    loss: float | None = None
    seconds_left: float | None = None
    error: str = ""


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab status`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    states = run_states(options.folder)
    counts = {name: count for name in STATES if (count := Counter(run.state for run in states)[name])}
    failed = [run for run in states if run.state == "failed"]
    if options.json:
        runs = [asdict(run) for run in (failed if options.failed else states)]
        print(json.dumps({"folder": str(options.folder), "counts": counts, "runs": runs}, indent=1, allow_nan=False))
        return
    out = console()
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    out.print(f"{len(states):,} run{'s' if len(states) > 1 else ''}: {told}", soft_wrap=True, highlight=False)
    if options.failed:
        for run in failed:
            out.print(Text.assemble((run.name, "bold"), "\n", run.error), soft_wrap=True)
        return
    listed = states if options.all else most_urgent(states)
    if listed:
        out.print(table(listed))
    if left := len(states) - len(listed):
        out.print(f"{left:,} more: --all lists them", soft_wrap=True, highlight=False)


def most_urgent(states: list[RunState]) -> list[RunState]:
    """All runs where they are few, else those that go on or went wrong, as many as can be looked through."""
    if len(states) <= MOST_ROWS:
        return states
    urgent = ("running", "failed", "interrupted")
    return sorted((run for run in states if run.state in urgent), key=lambda run: urgent.index(run.state))[:MOST_ROWS]


def run_states(folder: Path) -> list[RunState]:
    """The runs of a sweep or comparison, of a folder of run folders, or the one run.

    Raises:
        InputError: the folder holds no run.
    """
    if (folder / SWEEP).exists():
        return of_sweep(folder)
    places = [folder] if is_run(folder) else planned_folders(folder) or run_folders(folder)
    if not places:
        raise InputError(f"{folder} holds no run: give the folder of a sweep, a comparison or a run, or one of run folders")
    return [of_folder(place, partial(is_written_to, place)) for place in places]


def planned_folders(folder: Path) -> list[Path]:
    """The run folders that a comparison asks for, in its order, and whatever others are in runs/."""
    asked = read_object(folder / COMPARISON)[0]
    kinds = {"arms": dict, "budgets": list, "seeds": list}
    usable = all(isinstance(asked.get(key), kind) for key, kind in kinds.items())
    planned = [
        folder / "runs" / f"{arm}-{budget}-s{seed}"
        for arm in (asked["arms"] if usable else ())
        for budget in asked["budgets"]
        for seed in asked["seeds"]
    ]
    return list(dict.fromkeys([*planned, *run_folders(folder / "runs")]))


def run_folders(folder: Path) -> list[Path]:
    """The run folders in a folder."""
    return sorted(place for place in folder.iterdir() if is_run(place)) if folder.is_dir() else []


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's; one that was killed early may have no record yet."""
    return any((folder / file).exists() for file in (RECORD, METRICS, "config.yaml"))


def of_sweep(folder: Path) -> list[RunState]:
    """The runs of a sweep; of those that ended results.csv says all, which is faster than to read every record."""
    sweep = read_sweep(folder)
    known, claims = ended_rows(folder, sweep), newest(folder / CLAIMS)
    return [
        of_row(run["folder"], known[run["folder"]])
        if known.get(run["folder"], {}).get("status") == "finished"
        else of_folder(folder / "runs" / run["folder"], partial(is_held, claims.get(run["folder"])), number(run, "steps"))
        for run in sweep["runs"]
    ]


def of_row(name: str, row: Row) -> RunState:
    """A finished run of a sweep."""
    steps, tokens, loss = (as_number(row[key]) for key in ("steps", "tokens", "val/loss"))
    return RunState(name, "finished", count(steps), count(steps), count(tokens), loss, error=row["error"])


def of_folder(place: Path, is_alive: Callable[[], bool], planned: float | None = None) -> RunState:
    """A run by its folder; `is_alive` tells whether somebody trains it now, `planned` its steps."""
    record, problem = read_object(place / RECORD)
    status, error = state(record, problem, is_alive)
    steps = planned or number(record, "steps")
    if status == "waiting":
        return RunState(place.name, status, steps=count(steps))
    if status != "finished":
        return progress(place, status, steps, error)
    loss = number(part(record, "final"), "val/loss")
    return RunState(place.name, status, count(steps), count(steps), count(number(record, "tokens")), loss, error=error)


def is_written_to(place: Path) -> bool:
    """Whether a run that nobody claims goes on: its folder is written to."""
    return time.time() - max(modified(place / RECORD), modified(place / METRICS)) < SILENCE_S


def progress(place: Path, status: str, steps: float | None, error: str) -> RunState:
    """A run that is not finished, by its newest row of metrics."""
    row = newest_row(place / METRICS)
    step, tokens, seconds = (number(row, key) for key in ("step", "tokens", "time"))
    left = (steps - step) * seconds / step if status == "running" and steps and step and seconds is not None else None
    return RunState(place.name, status, count(step), count(steps), count(tokens), number(row, "train/loss"), left, error)


def count(value: float | None) -> int | None:
    """A count."""
    return None if value is None else int(value)


def as_number(cell: str) -> float | None:
    """The number in a cell of results.csv."""
    try:
        return float(cell)
    except ValueError:
        return None


def table(states: Sequence[RunState]) -> Table:
    """One line a run."""
    shown = Table(box=None, pad_edge=False)
    for name in ("run", "state", "step", "tokens", "loss", "left", ""):
        shown.add_column(name, justify="right" if name in ("step", "tokens", "loss", "left") else "left", overflow="fold")
    for run in states:
        numbers = (
            "" if run.step is None and run.steps is None else f"{run.step or 0:,}/{run.steps or '?'}",
            "" if run.tokens is None else f"{run.tokens:,}",
            "" if run.loss is None else f"{run.loss:.4f}",
            "" if run.seconds_left is None else duration(run.seconds_left),
        )
        # Text, because rich would take [brackets] in a name or an error for its markup.
        shown.add_row(Text(run.name), Text(run.state, COLOURS[run.state]), *numbers, Text(first_line(run.error)))
    return shown


def first_line(error: str) -> str:
    """The first line of an error, cut where it is long."""
    line = error.strip().partition("\n")[0]
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 3] + "..."


def console() -> Console:
    """The standard output; in a file or a pipe, lines are wide enough that names stay whole."""
    out = Console()
    return out if out.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(prog="ngpt-lab status", description="Say how far the runs in a folder have come.")
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="the folder of a sweep, a comparison or a run, or one of run folders"
    )
    parser.add_argument("--failed", action="store_true", help="only the failed runs, each with its whole error")
    parser.add_argument("--all", action="store_true", help=f"list every run, even of more than {MOST_ROWS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
