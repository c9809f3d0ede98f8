"""Arms against a baseline: what each changes, how sure that is, and what equal loss costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from ngpt_lab.analysis.columns import METRICS, SCALES
from ngpt_lab.analysis.equal_loss import EqualLoss, time_to_equal_loss, tokens_to_equal_loss
from ngpt_lab.analysis.frames import curves
from ngpt_lab.analysis.results import by_condition
from ngpt_lab.analysis.statistics import (
    LEVEL,
    SEEDS_FOR_A_CLAIM,
    holm,
    minimal_detectable_effect,
    paired_interval,
    round_ratio,
)
from ngpt_lab.analysis.step_costs import Seconds
from ngpt_lab.errors import InputError

BASELINE = "baseline"
"""The verdict on the baseline itself."""


NO_DIFFERENCE = "no difference found"


def ablation_table(rows: pd.DataFrame, baseline: str, metric: str, budget: int | None = None) -> pd.DataFrame:
    """One row a condition and arm: how far `metric` lies from the baseline's, in the same condition at the same budget.

    `rows` are final rows (see `results.final_rows`); without `budget` every condition is read at the baseline's largest.
    The effect is the mean of arm - baseline over the seeds that both have; `low` and `high` bound its own 95% interval.
    `p_holm` and the verdict are corrected for the number of tests in the table, and so is `detectable`: the smallest
    true effect that would have been found, whatever became of the other arms, in 80% of such tables. Below three seeds
    there is neither test nor verdict. Baseline first in its condition, then sorted by effect.

    Raises:
        InputError: an unknown baseline or metric, or a budget that no run has.
    """
    _check(rows, baseline, metric, budget)
    found = [row for _, own in by_condition(rows) for row in _effects(own, baseline, metric, budget)]
    table = pd.DataFrame(found)
    table["p_holm"] = holm(table["p"].to_list())
    level = LEVEL / max(1, int(table["p"].notna().sum()))
    table["detectable"] = [
        minimal_detectable_effect(deviation, int(n), level) for deviation, n in zip(table["deviation"], table["n"], strict=True)
    ]
    table["verdict"] = [_verdict(row, baseline) for _, row in table.iterrows()]
    scales = [column for column in SCALES if column in table]
    return table[[*_COLUMNS, *scales]]


_COLUMNS = (
    *("condition", "arm", "budget", "n", "mean", "effect", "percent", "half_width", "low", "high"),
    *("p", "p_holm", "detectable", "verdict"),
)


def _check(rows: pd.DataFrame, baseline: str, metric: str, budget: int | None) -> None:
    arms = sorted(set(rows["arm"]))
    if baseline not in arms:
        raise InputError(f"the baseline {baseline!r} has no finished run: the arms that have are {', '.join(arms) or 'none'}.")
    known = [column for column in METRICS if column in rows and rows[column].notna().any()]
    if metric not in known:
        raise InputError(f"no finished run has the metric {metric!r}: there are {', '.join(known)}.")
    if budget is not None and budget not in set(rows["budget"]):
        raise InputError(f"no finished run has the budget {budget}: there are {sorted(set(rows['budget']))}.")


def _effects(rows: pd.DataFrame, baseline: str, metric: str, budget: int | None) -> list[dict[str, Any]]:
    """The arms of one condition."""
    of_baseline = rows.loc[rows["arm"] == baseline, "budget"]
    chosen = budget or int((of_baseline if len(of_baseline) else rows["budget"]).max())
    at_budget = rows[rows["budget"] == chosen]
    by_arm = at_budget.pivot(index="seed", columns="arm", values=metric)
    by_arm = by_arm.reindex(columns=sorted({*rows["arm"], baseline}))
    found = []
    for arm in sorted(set(rows["arm"])):
        labels = {"condition": rows["condition"].iloc[0], "arm": arm, "budget": chosen}
        own = at_budget[at_budget["arm"] == arm]
        scales = {column: float(own[column].mean()) for column in SCALES if column in own}
        found.append(labels | _effect(by_arm[arm], by_arm[baseline], itself=arm == baseline) | scales)
    return _sorted(found, "effect", baseline)


def _effect(arm: pd.Series[float], baseline: pd.Series[float], *, itself: bool) -> dict[str, Any]:
    paired = arm.notna() & baseline.notna()
    n = int(paired.sum())
    if itself or n == 0:
        return dict.fromkeys(("effect", "percent", "half_width", "low", "high", "p", "deviation"), nan) | {
            "n": int(arm.notna().sum()) if itself else 0,
            "mean": float(arm.mean()),
        }
    differences = (arm - baseline)[paired].to_numpy()
    interval = paired_interval(differences)
    return {
        "n": n,
        "mean": float(arm[paired].mean()),
        "effect": interval.mean,
        "percent": 100 * interval.mean / abs(float(baseline[paired].mean())),
        "half_width": interval.half_width,
        "low": interval.low,
        "high": interval.high,
        "p": interval.p if n >= SEEDS_FOR_A_CLAIM else nan,
        "deviation": float(np.std(differences, ddof=1)) if n > 1 else nan,
    }


def _verdict(row: pd.Series[Any], baseline: str) -> str:
    if row["arm"] == baseline:
        return BASELINE
    if row["n"] < SEEDS_FOR_A_CLAIM:
        return f"fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim"
    if row["p_holm"] < LEVEL:
        return "lower" if row["effect"] < 0 else "higher"
    return f"{NO_DIFFERENCE} (a difference of {row['detectable']:.4f} would have been)"


def _sorted(found: list[dict[str, Any]], by: str, baseline: str) -> list[dict[str, Any]]:
    """The baseline first, then from low to high, what has no number last."""
    return sorted(found, key=lambda row: (row["arm"] != baseline, inf if isnan(row[by]) else row[by], row["arm"]))


def equal_cost_table(rows: pd.DataFrame, baseline: str, step_seconds: Seconds | None = None) -> pd.DataFrame:
    """One row a condition and arm: tokens, FLOPs and seconds that the baseline needs per one of the arm, at equal loss.

    `rows` are final rows; `step_seconds` holds, by condition, each arm's seconds a step, one for every interleaved round:
    a condition under which no step was measured gets no seconds. Every cost comes with the ends of its interval; that of
    the seconds takes the step cost at its worst and is wider than 95%. Where nothing is claimed `reason` says why, and the
    costs are NaN.

    Raises:
        InputError: an unknown baseline.
    """
    _check(rows, baseline, "val/loss", None)
    seconds = step_seconds or {}
    found = [row for name, own in by_condition(rows) for row in _cost_rows(own, baseline, seconds.get(name, {}))]
    return pd.DataFrame(found, columns=list(_COSTS))


def _cost_rows(rows: pd.DataFrame, baseline: str, step_seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The arms of one condition."""
    reference = curves(rows, baseline)
    found = []
    for arm in sorted({*rows["arm"]} - {baseline}):
        reading = tokens_to_equal_loss(reference, curves(rows, arm))
        labels = {"condition": rows["condition"].iloc[0], "arm": arm}
        found.append(labels | _costs(rows, baseline, arm, reading, step_seconds))
    return _sorted(found, "tokens", baseline)


_COSTS = (
    *("condition", "arm", "n", "loss", "tokens", "tokens_low", "tokens_high", "flops", "flops_low", "flops_high"),
    *("seconds", "seconds_low", "seconds_high", "reason"),
)


def _costs(
    rows: pd.DataFrame, baseline: str, arm: str, reading: EqualLoss, step_seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    arms = {name: rows[rows["arm"] == name] for name in (baseline, arm)}
    per_token_flops = {name: own["flops_per_token"].to_numpy(dtype=float, na_value=nan) for name, own in arms.items()}
    cost = {name: float(values.mean()) if values.size else nan for name, values in per_token_flops.items()}
    flops = reading.at_cost(cost[baseline], cost[arm])
    found = {
        "n": reading.n,
        "loss": float(np.mean([point.loss for point in reading.per_seed.values()])) if reading.reason is None else nan,
        **_bounds("tokens", reading.ratio, reading.low, reading.high),
        **_bounds("flops", flops.ratio, flops.low, flops.high),
        **_bounds("seconds", nan, nan, nan),
        "reason": reading.reason or "",
    }
    if {baseline, arm} <= step_seconds.keys():
        per_step = {
            name: (own["tokens"] / own["steps"]).to_numpy(dtype=float, na_value=nan).mean() for name, own in arms.items()
        }
        per_token = {name: np.divide(step_seconds[name], tokens) for name, tokens in per_step.items()}
        time = time_to_equal_loss(reading, round_ratio(per_token[arm], per_token[baseline]))
        found |= _bounds("seconds", time.value, time.low, time.high)
    return found


def _bounds(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}
