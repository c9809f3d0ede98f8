"""Run folders -> `Run`: the record of what was trained and the rows it logged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.columns import measured
from ngpt_lab.analysis.states import problem_of
from ngpt_lab.errors import InputError

RECORD = "run.json"
METRICS = "metrics.jsonl"
_RECORD_KEYS = {
    "status": str,
    "seed": int,
    "tokens": int,
    "versions": dict,
    "device": dict,
    "data": dict,
    "model": dict,
    "settings": dict,
}
_FOLDER_NAME = re.compile(r"(?P<arm>.+)-(?P<budget>\d+)-s\d+")


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    `budget` groups runs meant to have the same tokens; `problem` says why it may not be used; `measures` are the measured
    columns of its results (see `columns.measured`).
    """

    folder: Path
    arm: str
    budget: int
    record: Mapping[str, Any]
    metrics: pd.DataFrame
    problem: str | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of the initialisation, by which runs are paired."""
        return int(self.record["seed"])

    @property
    def tokens(self) -> int:
        """Tokens really trained on."""
        return int(self.record["tokens"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """The parsed configuration, dotted key -> value."""
        settings: Mapping[str, Any] = self.record["settings"]
        return settings

    @property
    def model(self) -> Mapping[str, Any]:
        """Class, parameters, parametrisation."""
        model: Mapping[str, Any] = self.record["model"]
        return model

    @property
    def final(self) -> Mapping[str, float]:
        """The last val/* and test/* metrics."""
        return self.record.get("final") or {}

    @property
    def condition(self) -> Mapping[str, Any]:
        """What a sweep set for every arm alike, dotted key -> value: runs are compared within one condition only."""
        return sweep_labels(self.record).get("condition") or {}


def load_run(folder: Path) -> Run:
    """Read one run folder; rows are read only of a finished run, because an interrupted one may end mid-row."""
    record = read_record(folder)
    problem = problem_of(record)
    rows = [] if problem else _read_rows(folder / METRICS)
    name = _FOLDER_NAME.fullmatch(folder.resolve().name)
    arm = record.get("arm") or (name["arm"] if name else str(record["model"]["class"]).rpartition(".")[2])
    budget = record.get("budget") or (name["budget"] if name else record["tokens"])
    measures = {} if problem else measured(record, rows)
    return Run(folder, str(arm), int(budget), record, pd.DataFrame.from_records(rows), problem, measures)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an error names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a folder that holds one.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): restore it or repeat the run.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object: restore it or repeat the run.")
    return content


def read_record(folder: Path) -> dict[str, Any]:
    """The record of one run folder, with every entry that a run which began to train has."""
    path = folder / RECORD
    record = read_json(path)
    for key, kind in _RECORD_KEYS.items():
        if not isinstance(record.get(key), kind):
            raise InputError(f"{path} has no {key!r} of type {kind.__name__}: restore it or repeat the run.")
    if not {"class", "parameters"} <= record["model"].keys():
        raise InputError(f"{path} has no class and parameters under 'model': restore it or repeat the run.")
    return record


def sweep_labels(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the sweep that planned a run wrote into its record: stage, base, condition, trial; empty for other runs."""
    labels: Mapping[str, Any] = record.get("sweep") or {}
    return labels


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it or repeat the run.") from error
    if not lines:
        raise InputError(f"{path} is empty: restore it or repeat the run.")
    return [_row(path, number, line) for number, line in enumerate(lines, start=1)]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number} is not valid JSON: restore it or repeat the run.") from error
    if not isinstance(row, dict) or not {"step", "tokens"} <= row.keys():
        raise InputError(f"{path}, line {number} has no step and tokens: restore it or repeat the run.")
    return row


def name_arms(runs: Sequence[Run]) -> list[Run]:
    """Runs that no comparison named: where two would be the same arm, budget and seed, the folders name the arms."""
    crowded = {first.arm for first, _ in _collisions(runs)}
    named = [replace(run, arm=run.folder.resolve().name) if run.arm in crowded else run for run in runs]
    refuse_duplicates(named)
    return named


def refuse_duplicates(runs: Sequence[Run]) -> None:
    """Refuse two runs of the same condition, arm, budget and seed: they cannot be paired."""
    for first, second in _collisions(runs):
        raise InputError(
            f"{first.folder} and {second.folder} are both {first.arm}, {first.budget} tokens, seed {first.seed}: "
            "give only one of them."
        )


def _collisions(runs: Iterable[Run]) -> list[tuple[Run, Run]]:
    seen: dict[tuple[str, str, int, int], Run] = {}
    pairs = []
    for run in runs:
        key = (json.dumps(run.condition, sort_keys=True), run.arm, run.budget, run.seed)
        if key in seen:
            pairs.append((seen[key], run))
        seen[key] = run
    return pairs


def of_arm(runs: Iterable[Run], arm: str) -> list[Run]:
    """The runs of one arm."""
    return [run for run in runs if run.arm == arm]


def arms_of(runs: Iterable[Run]) -> list[str]:
    """The arms, in the order in which they come."""
    return list(dict.fromkeys(run.arm for run in runs))


def at_full_budget(runs: Sequence[Run]) -> list[Run]:
    """Of every arm the runs with its largest budget."""
    largest = {arm: max(run.budget for run in of_arm(runs, arm)) for arm in arms_of(runs)}
    return [run for run in runs if run.budget == largest[run.arm]]
