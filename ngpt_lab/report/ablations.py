"""The effect of every arm against the baseline, with Holm's correction over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ngpt_lab.analysis.ablation_table import BASELINE, ablation_table
from ngpt_lab.analysis.statistics import LEVEL, Interval
from ngpt_lab.report.comparison import Comparison, Condition

SHOWN = 6
"""Arms that one figure of lines can tell apart."""


def effects(comparison: Comparison) -> pd.DataFrame:
    """`ablation_table` of all conditions, less the baseline's own rows; empty where no run has the measure.

    `significant`: Holm's p lies below 5%.
    """
    finals, metric = comparison.finals, comparison.metric
    if finals[metric].isna().all():
        return pd.DataFrame(columns=["condition", "arm", "effect", "significant"])
    table = ablation_table(finals, comparison.baseline, metric)
    return table[table["verdict"] != BASELINE].assign(significant=table["p_holm"] < LEVEL).reset_index(drop=True)


def in_condition(table: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """The rows of one condition, for those arms that can be compared there."""
    return table[(table["condition"] == condition.name) & table["arm"].isin(condition.candidates)]


def interval_of(row: Mapping[str, Any]) -> Interval | None:
    """A row's paired difference; None where no seed is shared."""
    if not row["n"]:
        return None
    return Interval(float(row["effect"]), float(row["half_width"]), int(row["n"]), float(row["detectable"]))


def most_telling(condition: Condition, table: pd.DataFrame, most: int = SHOWN) -> Sequence[str]:
    """At most so many arms for a figure of lines: the first and those of the largest effects, in the condition's order."""
    if len(condition.arms) <= most:
        return condition.arms
    here = in_condition(table, condition)
    order = here.loc[here["effect"].astype(float).abs().sort_values(ascending=False).index, "arm"]
    chosen = list(dict.fromkeys([condition.arms[0], *order, *condition.arms]))[:most]
    return [arm for arm in condition.arms if arm in chosen]
