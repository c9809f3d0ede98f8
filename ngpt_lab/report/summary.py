"""Every number of a report as one dict, the content of summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

import pandas as pd

from ngpt_lab.analysis.frames import MEASURES, curves, final_losses, history, paired_difference
from ngpt_lab.analysis.runs import Run, at_full_budget, of_arm
from ngpt_lab.analysis.settings import settings_that_differ
from ngpt_lab.analysis.statistics import EqualLoss, Interval, Ratio, time_to_equal_loss, tokens_to_equal_loss
from ngpt_lab.report.cautions import cautions
from ngpt_lab.report.claim import Claim, make_claim
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.tuning import tuning_status

CLAIM_MEASURE = "test/bits_per_byte"


def build_summary(comparison: Comparison) -> dict[str, Any]:
    """The content of summary.json: plain JSON types, null for what is not known."""
    finals = final_losses(comparison.runs)
    arms = {arm: _arm(comparison, arm) for arm in comparison.arms}
    equal = equal_loss_readings(comparison, finals)
    claims = {arm: _claim(comparison, finals, arm) for arm in comparison.candidates}
    summary = {
        "claim": "\n".join(f"{claim.verdict} {claim.sentence}".strip() for claim in claims.values()),
        "claims": {arm: asdict(claim) for arm, claim in claims.items()},
        "warnings": cautions(comparison, arms),
        "baseline": comparison.baseline,
        "candidates": list(comparison.candidates),
        "arms": arms,
        "budgets": budgets_of(finals),
        "finished": _finished(comparison, finals),
        "tokens_to_equal_loss": {arm: _equal_loss(reading) for arm, reading in equal.items()},
        "time_to_equal_loss": {arm: _time(comparison.step_ratio(arm), reading) for arm, reading in equal.items()},
        "step_cost": _step_cost(comparison),
        "settings_that_differ": settings_that_differ(comparison.runs),
        "not_used": [asdict(one) for one in comparison.unused],
        "data": comparison.runs[0].record["data"],
        "device": comparison.runs[0].record["device"],
    }
    plain: dict[str, Any] = _plain(summary)
    return plain


def budgets_of(finals: pd.DataFrame) -> list[int]:
    """The budgets at which runs finished, smallest first."""
    return [int(budget) for budget in sorted(finals["budget"].unique())]


def equal_loss_readings(comparison: Comparison, finals: pd.DataFrame) -> dict[str, EqualLoss]:
    """Tokens to equal loss of every candidate."""
    baseline = curves(finals, comparison.baseline)
    return {arm: tokens_to_equal_loss(baseline, curves(finals, arm)) for arm in comparison.candidates}


def _claim(comparison: Comparison, finals: pd.DataFrame, candidate: str) -> Claim:
    own = finals[finals["arm"] == candidate]
    shared = set(own["budget"]) & set(finals.loc[finals["arm"] == comparison.baseline, "budget"])
    budget = max(shared, default=0)
    difference = paired_difference(finals, candidate, comparison.baseline, budget, CLAIM_MEASURE)
    tokens = int(own.loc[own["budget"] == budget, "tokens"].max()) if shared else 0
    parameters = int(of_arm(comparison.runs, candidate)[0].model["parameters"])
    ratio = comparison.step_ratio(candidate)
    return make_claim(candidate, comparison.baseline, difference, (tokens, parameters), ratio)


def _arm(comparison: Comparison, arm: str) -> dict[str, Any]:
    own = of_arm(comparison.runs, arm)
    full = at_full_budget(own)
    model = full[0].model
    of_baseline = of_arm(comparison.runs, comparison.baseline)[0].model["parameters"]
    return {
        "class": model["class"],
        "parametrisation": model.get("parametrisation"),
        "parameters": model["parameters"],
        "parameters_percent": 100 * (model["parameters"] / of_baseline - 1),
        "flops_per_token": model.get("flops_per_token"),
        "seeds": sorted(run.seed for run in full),
        "clipped_share": _clipped_share(full),
        "tuning": _tuning(comparison, arm, own),
    }


def _clipped_share(runs: list[Run]) -> float | None:
    rows = history(runs, "train/clipped_share")
    return None if rows.empty else float(rows.sort_values("tokens").groupby("seed")["value"].last().mean())


def _tuning(comparison: Comparison, arm: str, runs: list[Run]) -> dict[int, str]:
    trials = comparison.trials
    own = trials[trials["arm"] == arm] if trials is not None and "arm" in trials else trials
    first = {run.budget: run for run in sorted(runs, key=lambda run: -run.seed)}
    return {budget: tuning_status(first[budget].settings, own, budget) for budget in sorted(first)}


def _finished(comparison: Comparison, finals: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each budget and measure: every arm's mean and seeds, every candidate's paired difference."""
    return [
        {
            "budget": budget,
            "measure": measure,
            "split": split,
            "unit": unit,
            "arms": {arm: _level(finals, arm, budget, measure) for arm in comparison.arms},
            "differences": {
                arm: _interval(paired_difference(finals, arm, comparison.baseline, budget, measure))
                for arm in comparison.candidates
            },
        }
        for measure, (split, unit) in MEASURES.items()
        if finals[measure].notna().any()
        for budget in budgets_of(finals)
    ]


def _level(finals: pd.DataFrame, arm: str, budget: int, measure: str) -> dict[str, Any] | None:
    rows = finals[(finals["arm"] == arm) & (finals["budget"] == budget)].dropna(subset=[measure])
    if rows.empty:
        return None
    seeds = dict(zip(rows["seed"], rows[measure], strict=True))
    return {"mean": rows[measure].mean(), "n": len(rows), "seeds": seeds}


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {
        "mean": interval.mean,
        "half_width": interval.half_width,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "detectable": interval.detectable,
        "excludes_zero": interval.excludes_zero,
    }


def _equal_loss(reading: EqualLoss) -> dict[str, Any]:
    seeds = {seed: asdict(point) | {"ratio": point.ratio} for seed, point in reading.per_seed.items()}
    return asdict(reading) | {"per_seed": seeds}


def _time(step_ratio: Ratio | None, reading: EqualLoss) -> dict[str, Any]:
    reason = "the cost of a step was not measured" if step_ratio is None else reading.reason
    if step_ratio is None or reason:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return asdict(time_to_equal_loss(reading, step_ratio)) | {"reason": None}


def _step_cost(comparison: Comparison) -> dict[str, Any] | None:
    if comparison.step_cost is None:
        return None
    ratios = {arm: comparison.step_ratio(arm) for arm in comparison.candidates}
    return {
        "unit": comparison.step_cost.get("unit", "seconds per step"),
        "threads": comparison.step_cost.get("threads"),
        "rounds": len(next(iter(comparison.step_seconds().values()), [])),
        "device": comparison.step_cost.get("device"),
        "ratios": {arm: asdict(ratio) for arm, ratio in ratios.items() if ratio is not None},
    }


def _plain(value: Any) -> Any:
    """The same content in JSON's types; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return _number(value)


def _number(value: Any) -> float | int | str | None:
    try:
        number = value.item() if hasattr(value, "item") else float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if isfinite(number) else None
