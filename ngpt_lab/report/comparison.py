"""What a report is about: the usable runs by condition and arm, and what there is beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.columns import CLAIM_METRIC
from ngpt_lab.analysis.results import condition_text, rows_of_runs
from ngpt_lab.analysis.runs import Run, arms_of, refuse_duplicates
from ngpt_lab.analysis.statistics import Ratio, round_ratio
from ngpt_lab.analysis.step_costs import STEP_COST, read_step_costs
from ngpt_lab.errors import InputError
from ngpt_lab.report.measures import ALL_MEASURES
from ngpt_lab.report.sameness import refuse_other_data
from ngpt_lab.report.sources import TUNING, Collection, Trial, Unused, left_out
from ngpt_lab.report.trials import read_searched

Measured = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Condition:
    """Finished runs that may be compared with each other, the baseline first in `arms`.

    Attributes:
        name: of the settings that all these runs share and others do not; empty where there is one condition.
        setting: the same, dotted key -> value.
        arms: the baseline, where it has a run here, then the others.
        runs: finished and usable.
        baseline: the arm that the others are compared with, whether or not it has a run here.
        step_cost: the interleaved measurement of a step; None where it was not measured under this condition.
    """

    name: str
    setting: Mapping[str, Any]
    arms: tuple[str, ...]
    runs: tuple[Run, ...]
    baseline: str
    step_cost: Mapping[str, Any] | None

    @property
    def candidates(self) -> tuple[str, ...]:
        """The arms that are compared with the baseline; none where it has no run."""
        return self.arms[1:] if self.baseline in self.arms else ()

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return re.sub(r"[^A-Za-z0-9._+=-]+", "-", self.name).strip("-.")

    @cached_property
    def finals(self) -> pd.DataFrame:
        """One row a run, as in a sweep's results.csv; `condition` is the name."""
        return rows_of_runs(self.runs).assign(condition=self.name)

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


@dataclass(frozen=True, eq=False)
class Comparison:
    """Finished runs in one condition or several, and what there is beside them: those left out, searches, commands."""

    conditions: tuple[Condition, ...]
    metric: str
    unused: tuple[Unused, ...]
    trials: tuple[Trial, ...]
    searched: pd.DataFrame | None
    collection: Collection
    command: str

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run that is used."""
        return tuple(run for condition in self.conditions for run in condition.runs)

    @cached_property
    def finals(self) -> pd.DataFrame:
        """The rows of every condition."""
        return pd.concat([condition.finals for condition in self.conditions], ignore_index=True)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, in the order of the plan, the baseline first."""
        return tuple(dict.fromkeys(arm for condition in self.conditions for arm in condition.arms))

    @property
    def baseline(self) -> str:
        """The arm that every other arm is compared with."""
        return self.conditions[0].baseline


def compare(collection: Collection, folder: Path, baseline: str | None = None, command: str = "") -> Comparison:
    """The comparison of what was collected; `folder` is the report's, where a step's cost and a search may lie too.

    Unless one is named or planned, the baseline is the first arm that is no nGPT.

    Raises:
        InputError: no run is usable, the baseline has none, or runs of one condition saw different data.
    """
    runs = collection.runs
    refuse_duplicates(runs)
    arms = list(dict.fromkeys([*collection.arms, *arms_of(runs)]))
    if baseline is not None and baseline not in arms:
        raise InputError(f"there is no arm {baseline!r} to be the baseline: the arms are {', '.join(arms)}.")
    used = [run for run in runs if run.problem is None]
    unused = (*(left_out(run) for run in runs if run.problem is not None), *collection.lost)
    if not used:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in unused[:3])
        raise InputError(f"no finished run to report on ({reasons or 'no run given'}).")
    first = baseline or _baseline(collection, used)
    if first not in arms_of(used):
        raise InputError(f"the baseline {first} has no finished run: finish one or name another baseline.")
    return Comparison(
        conditions=_conditions(used, [first, *arms], collection.step_costs or read_step_costs(folder / STEP_COST)),
        metric=_metric(collection),
        unused=unused,
        trials=collection.trials,
        searched=read_searched(folder / TUNING) if collection.searched is None else collection.searched,
        collection=collection,
        command=command or "\n".join(collection.commands),
    )


def _baseline(collection: Collection, used: Sequence[Run]) -> str:
    plain = [run.arm for run in used if run.model.get("parametrisation") is None]
    return collection.baseline or next(iter([*plain, *arms_of(used)]))


def _metric(collection: Collection) -> str:
    metric = collection.metric or CLAIM_METRIC
    if metric not in ALL_MEASURES:
        raise InputError(f"there is no measure {metric!r} to compare by: the measures are {', '.join(ALL_MEASURES)}.")
    return metric


def _conditions(used: Sequence[Run], arms: Sequence[str], step_costs: Measured) -> tuple[Condition, ...]:
    groups: dict[str, list[Run]] = {}
    for run in used:
        groups.setdefault(json.dumps(run.condition, sort_keys=True), []).append(run)
    return tuple(_condition(runs, arms, step_costs, alone=len(groups) == 1) for runs in groups.values())


def _condition(runs: Sequence[Run], arms: Sequence[str], step_costs: Measured, *, alone: bool) -> Condition:
    refuse_other_data(runs)
    setting = runs[0].condition
    here = [told for told in step_costs if told.get("condition", {}) == setting or (alone and len(step_costs) == 1)]
    return Condition(
        name="" if alone else condition_text(setting) or "no condition",
        setting=setting,
        arms=tuple(arm for arm in dict.fromkeys(arms) if arm in arms_of(runs)),
        runs=tuple(runs),
        baseline=arms[0],
        step_cost=here[0] if here else None,
    )
