"""What folders hold: the runs that were planned, those that are there, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.runs import RECORD, Run, load_run, name_arms, read_json, read_record
from ngpt_lab.analysis.step_costs import STEP_COST, read_step_costs
from ngpt_lab.errors import InputError
from ngpt_lab.report.trials import ended, read_searched

COMPARISON, SWEEP = "compare.json", "sweep.json"
TUNING = "tuning.csv"
_COMPARISON_KEYS = {"arms": dict, "baseline": str, "seeds": list, "budgets": list}
_SWEEP_KEYS = {"baseline": str, "metric": str, "runs": list}
_RUN_KEYS = {"folder": str, "stage": str, "arm": str}
_TRIAL = "tune"


@dataclass(frozen=True, eq=False)
class Unused:
    """A run that the report leaves out: `state` in a word, `reason` in a clause; `record` is what is left of its own."""

    name: str
    state: str
    reason: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of a search: it is no arm, it chooses an arm's settings."""

    folder: Path
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Collection:
    """The runs that folders hold, usable or not, and what was planned there.

    Attributes:
        runs: those whose record can be read, in the order of the plan.
        lost: those that were not started or cannot be read.
        trials: of a search.
        arms: in the order of the plan.
        baseline: the arm that the plan compares with; None without a plan, or with several that do not agree.
        metric: the measure that the plan compares by; None likewise.
        commands: that made the runs, as far as it is known.
        questions: that the sweeps ask.
        tune: what the sweep's plan says of its search; None where there was none.
        step_costs: what was measured, by condition; empty where nothing was, or in several folders.
        searched: the rows of searches; None without any.
        specification: the text of the sweep's own file.
    """

    runs: tuple[Run, ...] = ()
    lost: tuple[Unused, ...] = ()
    trials: tuple[Trial, ...] = ()
    arms: tuple[str, ...] = ()
    baseline: str | None = None
    metric: str | None = None
    commands: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    tune: Mapping[str, Any] | None = None
    step_costs: tuple[Mapping[str, Any], ...] = ()
    searched: pd.DataFrame | None = None
    specification: str | None = None


def is_planned(folder: Path) -> bool:
    """Whether `ngpt-lab compare` or `ngpt-lab sweep` made the folder."""
    return (folder / COMPARISON).exists() or (folder / SWEEP).exists()


def collect_runs(folders: Sequence[Path]) -> Collection:
    """What run folders, comparison folders and sweep folders hold together.

    Raises:
        InputError: a folder holds neither a run nor a plan, or a file beside the runs cannot be read.
    """
    collections = [_collect(folder) for folder in dict.fromkeys(folders)]
    return collections[0] if len(collections) == 1 else _together(collections)


def _collect(folder: Path) -> Collection:
    if (folder / SWEEP).exists():
        return _read_sweep(folder)
    if (folder / COMPARISON).exists():
        return _read_comparison(folder)
    if not (folder / RECORD).exists():
        read_record(folder)  # says that there is none
    run = _load(folder, folder.resolve().name)
    return Collection(runs=(run,)) if isinstance(run, Run) else Collection(lost=(run,))


def _together(parts: Sequence[Collection]) -> Collection:
    """No plan names the arms of several folders together, so where two would be the same, their folders' names do."""
    rows = [part.searched for part in parts if part.searched is not None]
    return Collection(
        runs=tuple(name_arms([run for part in parts for run in part.runs])),
        lost=tuple(one for part in parts for one in part.lost),
        trials=tuple(trial for part in parts for trial in part.trials),
        arms=tuple(dict.fromkeys(arm for part in parts for arm in part.arms)),
        baseline=_agreed(part.baseline for part in parts),
        metric=_agreed(part.metric for part in parts),
        commands=tuple(command for part in parts for command in part.commands),
        questions=tuple(question for part in parts for question in part.questions),
        tune=_agreed(part.tune for part in parts),
        step_costs=_agreed(part.step_costs or None for part in parts) or (),
        searched=pd.concat(rows, ignore_index=True) if rows else None,
        specification=_agreed(part.specification for part in parts),
    )


def _agreed(values: Iterable[Any]) -> Any:
    """The only value among those that are known; None where there is none or more than one."""
    known = [value for value in values if value is not None]
    return known[0] if known and all(value == known[0] for value in known) else None


def _read_comparison(folder: Path) -> Collection:
    plan = read_json(folder / COMPARISON)
    _check(plan, _COMPARISON_KEYS, folder / COMPARISON, "the comparison")
    names = [f"{arm}-{budget}-s{seed}" for arm in plan["arms"] for budget in plan["budgets"] for seed in plan["seeds"]]
    found = [_load(folder / "runs" / name, name) for name in names]
    return Collection(
        runs=tuple(run for run in found if isinstance(run, Run)),
        lost=tuple(one for one in found if isinstance(one, Unused)),
        arms=tuple(plan["arms"]),
        baseline=plan["baseline"],
        commands=tuple(filter(None, [plan.get("command")])),
        step_costs=read_step_costs(folder / STEP_COST),
        searched=read_searched(folder / TUNING),
    )


def _read_sweep(folder: Path) -> Collection:
    plan = read_json(folder / SWEEP)
    _check(plan, _SWEEP_KEYS, folder / SWEEP, "the sweep")
    for entry in plan["runs"]:
        _check(entry if isinstance(entry, dict) else {}, _RUN_KEYS, folder / SWEEP, "the sweep")
    final = [entry for entry in plan["runs"] if entry["stage"] != _TRIAL]
    found = [_load(folder / "runs" / entry["folder"], entry["folder"]) for entry in final]
    searched = read_searched(folder / TUNING)
    tried = [_load_trial(folder / "runs" / entry["folder"]) for entry in plan["runs"] if entry["stage"] == _TRIAL]
    # Recorded results may keep the search's rows alone.
    tried = [] if searched is not None and all(isinstance(one, Unused) for one in tried) else tried
    return Collection(
        runs=tuple(run for run in found if isinstance(run, Run)),
        lost=tuple(one for one in [*found, *tried] if isinstance(one, Unused)),
        trials=tuple(one for one in tried if isinstance(one, Trial)),
        arms=tuple(dict.fromkeys(entry["arm"] for entry in final)),
        baseline=plan["baseline"],
        metric=plan["metric"],
        commands=tuple(filter(None, [plan.get("command")])),
        questions=tuple(filter(None, [plan.get("question")])),
        tune=plan.get("tune"),
        step_costs=read_step_costs(folder / STEP_COST),
        searched=searched,
        specification=_text(folder / "sweep.yaml"),
    )


def _check(content: Mapping[str, Any], keys: Mapping[str, type], path: Path, what: str) -> None:
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path} has no {key!r} of type {kind.__name__}: restore it or repeat {what}.")


def _load(folder: Path, name: str) -> Run | Unused:
    """The run, or why there is none to read."""
    try:
        return load_run(folder)
    except InputError as error:
        return _lost(folder, name, error)


def _load_trial(folder: Path) -> Trial | Unused:
    """A trial's record is all that is needed of it; one that neither ended nor diverged chooses nothing."""
    try:
        record = read_record(folder)
    except InputError as error:
        return _lost(folder, folder.name, error)
    return Trial(folder, record) if ended(record) else _unused(folder.name, record, f"its status is {record['status']!r}")


def _lost(folder: Path, name: str, error: InputError) -> Unused:
    if not (folder / RECORD).exists():
        return Unused(name, "missing", "it was not started")
    try:
        record = read_json(folder / RECORD)
    except InputError:
        return Unused(name, "half-written", str(error))
    if record.get("status") == "failed":  # before it began to train, so that most of its record is not there
        return _unused(name, record, "its status is 'failed'")
    return Unused(name, "half-written", str(error), record)


def left_out(run: Run) -> Unused:
    """A run that its own problem keeps from being used."""
    return _unused(run.folder.name, run.record, run.problem or "")


def _unused(name: str, record: Mapping[str, Any], problem: str) -> Unused:
    status = str(record["status"])
    state = {"running": "interrupted", "finished": "unusable"}.get(status, status)
    told = f" ({error})" if (error := record.get("error")) and str(error) not in problem else ""
    still = ": interrupted, or still being trained" if status == "running" else ""
    return Unused(name, state, problem + told + still, record)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
