"""What a report is about: the usable runs by arm, and what there is beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.runs import RECORD, Run, arms_of, load_run, name_arms, read_json, refuse_duplicates
from ngpt_lab.analysis.statistics import Ratio, round_ratio
from ngpt_lab.errors import InputError

SPECIFICATION = "compare.json"
STEP_COST = "step_cost.json"
TUNING = "tuning.csv"


@dataclass(frozen=True)
class Unused:
    """A run that the report leaves out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Finished runs by arm, the baseline first in `arms`; step cost and search rows where there are any."""

    arms: tuple[str, ...]
    runs: tuple[Run, ...]
    unused: tuple[Unused, ...]
    step_cost: Mapping[str, Any] | None
    trials: pd.DataFrame | None
    command: str

    @property
    def baseline(self) -> str:
        """The arm that every other arm is compared with."""
        return self.arms[0]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The other arms."""
        return self.arms[1:]

    def step_seconds(self) -> dict[str, list[float]]:
        """Seconds a step of every measured arm, one per round."""
        arms = self.step_cost["arms"] if self.step_cost else {}
        return {arm: arms[arm]["seconds"] for arm in self.arms if arm in arms}

    def step_ratio(self, candidate: str) -> Ratio | None:
        """Step cost candidate / baseline; None where it was not measured."""
        seconds = self.step_seconds()
        if candidate not in seconds or self.baseline not in seconds:
            return None
        return round_ratio(seconds[candidate], seconds[self.baseline])


def is_comparison(folder: Path) -> bool:
    """Whether `ngpt-lab compare` made the folder."""
    return (folder / SPECIFICATION).exists()


def read_comparison(folder: Path) -> Comparison:
    """Every run that compare.json asks for; those not started or not finished are listed, not used."""
    specification = _read_specification(folder / SPECIFICATION)
    runs, missing = _load_asked(folder, specification)
    arms = [specification["baseline"], *specification["arms"]]
    return _assemble(runs, missing, arms, folder, specification.get("command") or "")


def _read_specification(path: Path) -> dict[str, Any]:
    specification = read_json(path)
    for key, kind in {"arms": dict, "baseline": str, "seeds": list, "budgets": list}.items():
        if not isinstance(specification.get(key), kind):
            raise InputError(f"{path} has no {key!r} of type {kind.__name__}: restore it or repeat the comparison.")
    return specification


def _load_asked(folder: Path, specification: Mapping[str, Any]) -> tuple[list[Run], list[Unused]]:
    names = [
        f"{arm}-{budget}-s{seed}"
        for arm in specification["arms"]
        for budget in specification["budgets"]
        for seed in specification["seeds"]
    ]
    started = [name for name in names if (folder / "runs" / name / RECORD).exists()]
    runs = [load_run(folder / "runs" / name) for name in started]
    return runs, [Unused(name, "it was not started") for name in names if name not in started]


def collect_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs of run folders and of whole comparison folders."""
    runs: list[Run] = []
    for folder in folders:
        if is_comparison(folder):
            runs += _load_asked(folder, _read_specification(folder / SPECIFICATION))[0]
        else:
            runs.append(load_run(folder))
    return runs


def compare_loose(folder: Path, runs: Sequence[Run], baseline: str | None, command: str) -> Comparison:
    """Runs that no comparison planned; unless one is named, the baseline is the first arm that is no nGPT."""
    named = name_arms(runs)
    arms = arms_of(named)
    if baseline is not None and baseline not in arms:
        raise InputError(f"there is no arm {baseline!r} to be the baseline: the arms are {', '.join(arms)}.")
    finished = [run for run in named if run.problem is None]
    plain = [run.arm for run in finished if run.model.get("parametrisation") is None]
    first = baseline or next(iter([*plain, *arms_of(finished)]), "")
    return _assemble(named, [], [first, *arms], folder, command)


def _assemble(runs: Sequence[Run], missing: Sequence[Unused], arms: Sequence[str], folder: Path, command: str) -> Comparison:
    refuse_duplicates(runs)
    used = [run for run in runs if run.problem is None]
    left_out = [Unused(run.folder.name, run.problem) for run in runs if run.problem is not None]
    if not used:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in [*left_out, *missing][:3])
        raise InputError(f"no finished run to report on ({reasons or 'no run given'}).")
    present = arms_of(used)
    if arms[0] not in present:
        raise InputError(f"the baseline {arms[0]} has no finished run: finish one or name another baseline.")
    return Comparison(
        arms=tuple(arm for arm in dict.fromkeys(arms) if arm in present),
        runs=tuple(used),
        unused=(*left_out, *missing),
        step_cost=_read_step_cost(folder / STEP_COST),
        trials=_read_trials(folder / TUNING),
        command=command,
    )


def _read_step_cost(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    measured = read_json(path)
    try:
        rounds = {len(arm["seconds"]) for arm in measured["arms"].values()}
    except (KeyError, TypeError, AttributeError):
        rounds = set()
    if len(rounds) != 1 or 0 in rounds:
        raise InputError(f"{path} needs the seconds of the same number of rounds for every arm: measure again.")
    return measured


def _read_trials(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}): restore it or remove it.") from error
