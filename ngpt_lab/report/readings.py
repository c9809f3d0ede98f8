"""Every number of one condition as plain types, a part of summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from ngpt_lab.analysis.equal_loss import EqualLoss, time_to_equal_loss, tokens_to_equal_loss
from ngpt_lab.analysis.frames import MEASURES, curves, history, paired_difference
from ngpt_lab.analysis.runs import Run, at_full_budget, of_arm, sweep_labels
from ngpt_lab.analysis.settings import settings_that_differ
from ngpt_lab.analysis.statistics import Interval, Ratio
from ngpt_lab.report.ablations import in_condition, interval_of
from ngpt_lab.report.cautions import cautions
from ngpt_lab.report.claim import Adjusted, Claim, beside_published, make_claim, overview, short
from ngpt_lab.report.comparison import Comparison, Condition
from ngpt_lab.report.measures import ALL_MEASURES
from ngpt_lab.report.tuning import rows_for, tuning_status


def read_condition(condition: Condition, comparison: Comparison, effects: pd.DataFrame) -> dict[str, Any]:
    """The numbers of one condition; `effects` as `ablations.effects` gives them."""
    finals = condition.finals
    arms = {arm: _arm(condition, comparison, arm) for arm in condition.arms}
    equal = equal_loss_readings(condition)
    own: dict[str, Mapping[str, Any]] = {row["arm"]: dict(row) for _, row in in_condition(effects, condition).iterrows()}
    among = int(effects["p"].notna().sum()) if len(effects) else 0
    claims = {arm: _claim(condition, comparison.metric, arm, own.get(arm), among) for arm in condition.candidates}
    return {
        "condition": condition.name,
        "setting": condition.setting,
        "overview": overview(condition.baseline, condition.candidates, own, comparison.metric) if len(claims) > 1 else None,
        "scale": _scale(condition),
        "claims": {arm: asdict(claim) for arm, claim in claims.items()},
        "warnings": cautions(condition, arms),
        "baseline": condition.baseline,
        "candidates": list(condition.candidates),
        "arms": arms,
        "budgets": budgets_of(finals),
        "finished": _finished(condition, comparison.metric),
        "effects": {arm: _effect(row) for arm, row in own.items()},
        "tokens_to_equal_loss": {arm: _equal_loss(reading) for arm, reading in equal.items()},
        "flops_to_equal_loss": {arm: _flops(arms, condition.baseline, arm, reading) for arm, reading in equal.items()},
        "time_to_equal_loss": {arm: _time(condition.step_ratio(arm), reading) for arm, reading in equal.items()},
        "step_cost": _step_cost(condition),
        "settings_that_differ": settings_that_differ(condition.runs),
        "data": condition.runs[0].record["data"],
    }


def budgets_of(finals: pd.DataFrame) -> list[int]:
    """The budgets at which runs finished, smallest first."""
    return [int(budget) for budget in sorted(finals["budget"].unique())]


def equal_loss_readings(condition: Condition) -> dict[str, EqualLoss]:
    """Tokens to equal loss of every candidate."""
    baseline = curves(condition.finals, condition.baseline)
    return {arm: tokens_to_equal_loss(baseline, curves(condition.finals, arm)) for arm in condition.candidates}


def _scale(condition: Condition) -> str:
    tokens = max(run.tokens for run in condition.runs)
    parameters = [int(run.model["parameters"]) for run in condition.runs]
    sizes = " to ".join(dict.fromkeys([short(min(parameters)), short(max(parameters))]))
    return f"At up to {tokens:,} tokens and {sizes} parameters. {beside_published((tokens, max(parameters)))}".strip()


def _claim(condition: Condition, metric: str, arm: str, row: Mapping[str, Any] | None, among: int) -> Claim:
    runs = of_arm(condition.runs, arm)
    tokens = max((run.tokens for run in runs if row is not None and run.budget == row["budget"]), default=0)
    return make_claim(
        arm,
        condition.baseline,
        None if row is None else interval_of(row),
        (tokens, int(runs[0].model["parameters"])),
        condition.step_ratio(arm),
        metric,
        Adjusted(float(row["p_holm"]), among) if row is not None and among > 1 else None,
    )


def _effect(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("budget", "n", "mean", "effect", "percent", "half_width", "low", "high", "p", "p_holm", "detectable")
    return {key: row[key] for key in kept} | {"significant": bool(row["significant"]), "verdict": row["verdict"]}


def _arm(condition: Condition, comparison: Comparison, arm: str) -> dict[str, Any]:
    own = of_arm(condition.runs, arm)
    full = at_full_budget(own)
    model = full[0].model
    baseline = of_arm(condition.runs, condition.baseline)
    of_baseline = baseline[0].model["parameters"] if baseline else None
    return {
        "class": model["class"],
        "parametrisation": model.get("parametrisation"),
        "parameters": model["parameters"],
        "parameters_percent": None if of_baseline is None else 100 * (model["parameters"] / of_baseline - 1),
        "flops_per_token": model.get("flops_per_token"),
        "seeds": sorted(run.seed for run in full),
        "clipped_share": _clipped_share(full),
        "tuning": _tuning(condition, comparison, arm, own),
    }


def _clipped_share(runs: list[Run]) -> float | None:
    rows = history(runs, "train/clipped_share")
    return None if rows.empty else float(rows.sort_values("tokens").groupby("seed")["value"].last().mean())


def _tuning(condition: Condition, comparison: Comparison, arm: str, runs: list[Run]) -> dict[int, str]:
    first = {run.budget: run for run in sorted(runs, key=lambda run: -run.seed)}
    if comparison.searched is None:
        return {budget: tuning_status(first[budget].settings, None, budget) for budget in sorted(first)}
    base = sweep_labels(runs[0].record).get("base")
    rows, owner = rows_for(comparison.searched, arm, base, condition.setting)
    told = {budget: tuning_status(first[budget].settings, rows, budget) for budget in sorted(first)}
    return told if owner == arm else {budget: f"{text} (the search of {owner})" for budget, text in told.items()}


def _finished(condition: Condition, metric: str) -> list[dict[str, Any]]:
    """A row for each budget and measure: every arm's mean and seeds, every candidate's paired difference."""
    finals = condition.finals
    return [
        {
            "budget": budget,
            "measure": measure,
            "split": split,
            "unit": unit,
            "arms": {arm: _level(finals, arm, budget, measure) for arm in condition.arms},
            "differences": {
                arm: _interval(paired_difference(finals, arm, condition.baseline, budget, measure))
                for arm in condition.candidates
            },
        }
        for measure, (split, unit) in ALL_MEASURES.items()
        if measure in {*MEASURES, metric} and finals[measure].notna().any()
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


def _flops(arms: Mapping[str, Mapping[str, Any]], baseline: str, candidate: str, reading: EqualLoss) -> dict[str, Any]:
    ours, theirs = arms[candidate]["flops_per_token"], arms[baseline]["flops_per_token"]
    reason = reading.reason if ours and theirs else "the FLOPs of a token are not recorded"
    if reason:
        return {"value": None, "low": None, "high": None, "reason": reason}
    scaled = reading.at_cost(theirs, ours)
    return {"value": scaled.ratio, "low": scaled.low, "high": scaled.high, "reason": None}


def _time(step_ratio: Ratio | None, reading: EqualLoss) -> dict[str, Any]:
    reason = "the cost of a step was not measured" if step_ratio is None else reading.reason
    if step_ratio is None or reason:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return asdict(time_to_equal_loss(reading, step_ratio)) | {"reason": None}


def _step_cost(condition: Condition) -> dict[str, Any] | None:
    if condition.step_cost is None:
        return None
    ratios = {arm: condition.step_ratio(arm) for arm in condition.candidates}
    return {
        "unit": condition.step_cost.get("unit", "seconds per step"),
        "threads": condition.step_cost.get("threads"),
        "rounds": len(next(iter(condition.step_seconds().values()), [])),
        "device": condition.step_cost.get("device"),
        "ratios": {arm: asdict(ratio) for arm, ratio in ratios.items() if ratio is not None},
    }
