"""Whether an arm's settings come out of a search, read off the search's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ngpt_lab.analysis.columns import cell as text_of
from ngpt_lab.analysis.trials import at_edge
from ngpt_lab.analysis.wording import short_key
from ngpt_lab.errors import InputError

TUNED = "tuned: "
"""How the status begins when nothing is to be said against it."""
_AT_EDGE = "at the edge of"
_COLUMNS = ("arm", "lr", "budget", "val_loss")
_SAME_BUDGET = 0.01
"""Budgets round to whole steps; 1% is the same budget."""


def rows_for(searched: pd.DataFrame, arm: str, base: str | None, setting: Mapping[str, Any]) -> tuple[pd.DataFrame, str]:
    """The trials that chose an arm's settings under one condition, and the arm they were trials of.

    An arm that was not searched has what the searched arm of its base chose.
    """
    here = of_condition(searched, setting)
    if "arm" not in here:
        return here, arm
    own = here[here["arm"] == arm]
    if own.empty and base and "base" in here:
        own = here[here["base"] == base]
    return own, arm if own.empty else str(own["arm"].iloc[0])


def of_condition(searched: pd.DataFrame, setting: Mapping[str, Any]) -> pd.DataFrame:
    """The trials that were run under one condition; a search that does not tell its condition counts for all."""
    return searched[_agrees(searched, [key for key in setting if key in searched], setting)]


def tuning_status(arm_settings: Mapping[str, Any], rows: pd.DataFrame | None, budget: int) -> str:
    """One clause on how an arm's settings were chosen for runs of `budget` tokens.

    `rows` holds that arm's trials, one a seed: columns arm, lr, budget (tokens), val_loss and one per dotted settings
    key, swept or merely held; a trial is the arm's own when it agrees on every such key and on the learning rate. The
    best has the lowest mean over seeds among trials with as many seeds. The grid is the learning rates tried at this
    budget with the arm's other settings; of every other number, all that was tried at this budget counts.
    """
    if rows is None or rows.empty:
        return "not tuned"
    if missing := [column for column in _COLUMNS if column not in rows]:
        raise InputError(f"the search rows have no column {missing[0]!r}: they need {', '.join(_COLUMNS)}.")
    keys = [str(column) for column in rows.columns if "." in str(column) and rows[column].notna().any()]
    others = [key for key in keys if not _is_learning_rate(key)]
    related = rows[_agrees(rows, others, arm_settings)]
    own = related[related["lr"].map(lambda rate: _is_own_rate(rate, arm_settings))]
    if own.empty:
        return "not tuned: the settings match no trial of the search"
    at_budget = _near(own["budget"], budget)
    if not at_budget.any():
        return f"tuned at another budget ({', '.join(f'{int(b):,}' for b in sorted(own['budget'].unique()))} tokens)"
    tried = rows[_near(rows["budget"], budget)]
    trials = _trials(tried, [*others, "lr"])
    repeats = int(at_budget.sum())
    # A trial run with fewer seeds than this one has not been put to the same test.
    rivals = trials.loc[trials["count"] >= repeats, "mean"]
    place = 1 + int((rivals < _losses(own[at_budget]).mean()).sum())
    if place > 1:
        return f"place {place} of {len(trials)} trials at this budget, not the best"
    rates = related.loc[_near(related["budget"], budget), "lr"]
    return "; ".join([_rate_in_grid(len(trials), rates, own["lr"].iloc[0]), *_edges(tried, others, arm_settings)])


def chosen_inside(status: str) -> bool:
    """Whether a status of `tuning_status` tells of the best trial, with no setting at the edge of what was tried."""
    return status.startswith(TUNED) and _AT_EDGE not in status


def _rate_in_grid(trials: int, rates: pd.Series[float], rate: float) -> str:
    low, high = rates.min(), rates.max()
    if low < rate < high:
        return f"{TUNED}best of {trials} trials at this budget, learning rate inside its grid {low:g}..{high:g}"
    return f"tuned, but the best learning rate sits {_AT_EDGE} its grid {low:g}..{high:g} ({trials} trials)"


def _edges(tried: pd.DataFrame, keys: list[str], settings: Mapping[str, Any]) -> list[str]:
    """A clause for each number that was varied and is the arm's own at its smallest or largest."""
    clauses = []
    for key in keys:
        if at_edge(settings.get(key), tried[key]):
            numbers = pd.to_numeric(tried[key], errors="coerce")
            low, high = numbers.min(), numbers.max()
            clauses.append(f"{short_key(key, keys)} {_AT_EDGE} what was tried ({low:g}..{high:g})")
    return clauses


def _is_learning_rate(key: str) -> bool:
    return key.rpartition(".")[2] == "lr"


def _is_own_rate(rate: object, settings: Mapping[str, Any]) -> bool:
    return any(_same(rate, value) for key, value in settings.items() if _is_learning_rate(key))


def _agrees(rows: pd.DataFrame, keys: list[str], settings: Mapping[str, Any]) -> pd.Series[bool]:
    agrees = pd.Series(True, index=rows.index)
    for key in keys:
        agrees &= rows[key].map(lambda value, key=key: _same(value, settings.get(key)))
    return agrees


def _same(cell: object, value: object) -> bool:
    """Whether a CSV cell states a setting; an empty cell states none."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return value is None
    try:
        return bool(np.isclose(float(str(cell)), float(str(value)), rtol=1e-9, atol=0))
    except ValueError:
        return str(cell).lower() == text_of(value).lower()


def _near(budgets: pd.Series[float], budget: int) -> pd.Series[bool]:
    return (budgets - budget).abs() <= _SAME_BUDGET * budget


def _trials(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean loss of every distinct setting, and how many seeds it was given."""
    return rows.assign(val_loss=_losses(rows)).groupby(keys, dropna=False)["val_loss"].agg(["mean", "count"])


def _losses(rows: pd.DataFrame) -> pd.Series[float]:
    """Validation losses; a trial that diverged counts as infinitely bad."""
    return rows["val_loss"].fillna(np.inf)
