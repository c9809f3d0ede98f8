"""The tables of a sweep, from the rows of its results: ablations, losses, cost, scales, sizes, settings, tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from ngpt_lab.analysis.ablation_table import ablation_table, equal_cost_table
from ngpt_lab.analysis.columns import METRICS, SCALES
from ngpt_lab.analysis.results import by_condition, final_rows
from ngpt_lab.analysis.step_costs import Seconds
from ngpt_lab.analysis.table_settings import OPTIMISATION, SIZES
from ngpt_lab.analysis.table_text import Table
from ngpt_lab.analysis.trials import at_edge
from ngpt_lab.analysis.wording import short_key

UNKNOWN = "-"


def all_tables(rows: pd.DataFrame, baseline: str, metric: str, step_seconds: Seconds | None = None) -> list[Table]:
    """Every table that the rows of a sweep give (see `results.read_results`), the answer first.

    `step_seconds` as for `equal_cost_table`.

    Raises:
        InputError: an unknown baseline or metric.
    """
    finals = final_rows(rows)
    tables = [
        ablations(finals, baseline, metric),
        equal_cost(finals, baseline, step_seconds),
        finished_losses(finals),
        learned_scales(finals, baseline, metric),
        sizes(finals),
        optimisation(finals),
        tuning(rows),
        unfinished(rows),
    ]
    return [table for table in tables if not table.frame.empty]


def ablations(finals: pd.DataFrame, baseline: str, metric: str) -> Table:
    """The ablation table at every condition's largest budget."""
    found = ablation_table(finals, baseline, metric)
    shown = _labels(found) | {
        "seeds": _texts(found["n"], "{:d}"),
        metric: _texts(found["mean"], "{:.4f}"),
        "effect": _texts(found["effect"], "{:+.4f}"),
        "95% interval": _ranges(found, "low", "high", "{:+.4f}"),
        "%": _texts(found["percent"], "{:+.2f}"),
        "p": [_probability(p) for p in found["p"]],
        "p (Holm)": [_probability(p) for p in found["p_holm"]],
        "verdict": list(found["verdict"]),
    }
    note = (
        f"Effect: arm - {baseline}, paired by seed, with its own 95% t interval. The verdict stands on the p value that is "
        "corrected (Holm) for the number of tests in the table; so does the difference that would have been found (in 80% "
        "of such tables)."
    )
    return Table("ablations", f"{metric} against {baseline}", note, pd.DataFrame(shown))


def equal_cost(finals: pd.DataFrame, baseline: str, step_seconds: Seconds | None = None) -> Table:
    """Tokens, FLOPs and seconds to equal loss."""
    found = equal_cost_table(finals, baseline, step_seconds)
    shown: dict[str, Sequence[str]] = _labels(found) | {
        "seeds": _texts(found["n"], "{:d}"),
        "loss": _texts(found["loss"], "{:.4f}"),
    }
    for cost in ("tokens", "flops", "seconds"):
        if found[cost].notna().any():
            shown[cost.replace("flops", "FLOPs")] = _texts(found[cost], "{:.2f}")
            shown[f"{cost.replace('flops', 'FLOPs')}, interval"] = _ranges(found, f"{cost}_low", f"{cost}_high", "{:.2f}")
    if found["reason"].any():
        shown["not claimed because"] = list(found["reason"])
    note = (
        f"How many times the arm's cost {baseline} pays until both reach the same validation loss: above 1 the arm is "
        "cheaper. Read between finished runs only, with 95% intervals."
    )
    if "seconds" in shown:
        note += " The interval of the seconds takes the cost of a step at its worst."
    return Table("equal_loss", f"Cost to equal loss, {baseline} / arm", note, pd.DataFrame(shown))


def finished_losses(finals: pd.DataFrame) -> Table:
    """Mean and spread of every measure, per condition, arm and budget."""
    ordered = pd.concat([own for _, own in by_condition(finals)])
    groups = ordered.groupby(["condition", "arm", "budget"], sort=False)
    means, spreads = (groups[list(METRICS)].agg(how).reset_index() for how in ("mean", "std"))
    shown = _labels(means) | {"seeds": [str(size) for size in groups.size()]}
    for metric in METRICS:
        if means[metric].notna().any():
            shown[metric] = [
                _text(mean, "{:.4f}") + ("" if isnan(spread) else f" ({spread:.4f})")
                for mean, spread in zip(means[metric], spreads[metric], strict=True)
            ]
    note = "Means over the seeds of finished runs; in brackets the standard deviation over seeds."
    return Table("finished_losses", "Finished losses", note, pd.DataFrame(shown))


def learned_scales(finals: pd.DataFrame, baseline: str, metric: str) -> Table:
    """What the learned scales came to, and what the metric changed with them: the paper's Tables 4 and 5."""
    found = ablation_table(finals, baseline, metric)
    found = found[found[list(SCALES)].notna().any(axis=1)]
    shown = _labels(found)
    for column, symbol in SCALES.items():
        if found[column].notna().any():
            shown[symbol] = _texts(found[column], "{:.3f}")
    shown |= {metric: _texts(found["mean"], "{:.4f}"), "%": _texts(found["percent"], "{:+.2f}")}
    note = f"Mean magnitude over channels, layers and seeds at the end of training; %: change of {metric} against {baseline}."
    return Table("learned_scales", "Learned scales", note, pd.DataFrame(shown))


def sizes(finals: pd.DataFrame) -> Table:
    """Parameters, FLOPs and shape of every arm: the paper's Table 2."""
    counts = {"parameters": "{:,.0f}", "flops_per_token": "{:,.0f}"}
    shown: dict[str, Sequence[str]] = {"arm": _arms(finals)}
    for column, form in counts.items():
        shown[column.replace("flops_per_token", "FLOPs per token")] = [_distinct(own[column], form) for own in _by_arm(finals)]
    note = "FLOPs of the forward and backward pass, attention and projections included."
    return Table("sizes", "Sizes", note, pd.DataFrame(shown | _settings(finals, SIZES)))


def optimisation(finals: pd.DataFrame) -> Table:
    """How every arm was trained: the paper's Table 3."""
    shown = _settings(finals, OPTIMISATION)
    frame = pd.DataFrame({"arm": _arms(finals)} | shown if shown else {})
    return Table("optimisation", "Optimisation settings", "Several values: they differ among the arm's runs.", frame)


def tuning(rows: pd.DataFrame) -> Table:
    """The best trial of every arm at every budget, and whether it lies at the edge of what was tried."""
    trials = rows[rows["stage"] == "tune"]
    keys = [column for column in rows.columns if "." in column and trials[column].nunique() > 1]
    found = [
        {"condition": condition, "arm": arm, "budget": budget} | _best_trial(own, keys)
        for condition, rows_of_one in by_condition(trials)
        for (arm, budget), own in rows_of_one.groupby(["arm", "budget"])
    ]
    frame = pd.DataFrame(found, columns=["condition", "arm", "budget", "trials", "seeds", "best", "loss", "edge"])
    shown = _labels(frame) | {
        "trials": [str(count) for count in frame["trials"]],
        "seeds": [str(count) for count in frame["seeds"]],
        "best": list(frame["best"]),
        "val/loss": _texts(frame["loss"], "{:.4f}"),
        "at the edge": list(frame["edge"]),
    }
    note = "The trial with the lowest mean validation loss; a failed trial counts as infinitely bad."
    return Table("tuning", "Tuning", note, pd.DataFrame(shown))


def _best_trial(trials: pd.DataFrame, keys: Sequence[str]) -> dict[str, Any]:
    own = [key for key in keys if trials[key].nunique() > 1]
    losses = trials["val/loss"].where(trials["status"] == "finished").fillna(float("inf"))
    # Without a key to tell them apart all rows are one trial.
    by = [trials[key] for key in own] or [trials["arm"]]
    means = losses.groupby(by, dropna=False).transform("mean")
    row = trials.iloc[int(means.to_numpy().argmin())]
    done = means.min() < float("inf")
    return {
        "trials": losses.groupby(by, dropna=False).ngroups,
        "seeds": trials["seed"].nunique(),
        "best": ", ".join(f"{short_key(key, keys)}={_value(row[key])}" for key in own if done) or UNKNOWN,
        "loss": means.min() if done else float("nan"),
        "edge": ", ".join(short_key(key, keys) for key in own if done and at_edge(row[key], trials[key])) or "no",
    }


def unfinished(rows: pd.DataFrame) -> Table:
    """The runs that no other table counts, with their error."""
    left = rows[rows["status"] != "finished"]
    shown = {"run": list(left["name"]), "state": list(left["status"]), "error": list(left["error"])}
    return Table("unfinished", "Runs that are not finished", "No other table counts them.", pd.DataFrame(shown))


def _labels(found: pd.DataFrame) -> dict[str, Sequence[str]]:
    """The columns that say what a row is about: the condition where there are several, the arm, the tokens."""
    shown: dict[str, Sequence[str]] = {}
    if found["condition"].nunique() > 1:
        shown["condition"] = list(found["condition"])
    shown["arm"] = list(found["arm"])
    return shown | ({"tokens": _texts(found["budget"], "{:,d}")} if "budget" in found else {})


def _arms(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["arm"]))


def _by_arm(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [rows[rows["arm"] == arm] for arm in _arms(rows)]


def _settings(rows: pd.DataFrame, headings: Mapping[str, str]) -> dict[str, Sequence[str]]:
    present = {key: name for key, name in headings.items() if key in rows and rows[key].notna().any()}
    return {name: [_distinct(own[key]) for own in _by_arm(rows)] for key, name in present.items()}


def _distinct(values: pd.Series[Any], form: str | None = None) -> str:
    found = dict.fromkeys(_value(value) if form is None else form.format(value) for value in values.dropna())
    return ", ".join(found) or UNKNOWN


def _value(value: Any) -> str:
    """A setting in words: a class by its last name."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    text = str(value)
    return text.rpartition(".")[2] if text.startswith("ngpt_lab.") else text


def _texts(values: pd.Series[Any], form: str) -> list[str]:
    return [_text(value, form) for value in values]


def _text(value: Any, form: str) -> str:
    return UNKNOWN if pd.isna(value) else form.format(value)


def _ranges(found: pd.DataFrame, low: str, high: str, form: str) -> list[str]:
    pairs = zip(found[low], found[high], strict=True)
    return [UNKNOWN if pd.isna(bottom) else f"{form.format(bottom)} to {form.format(top)}" for bottom, top in pairs]


def _probability(p: float) -> str:
    return UNKNOWN if isnan(p) else "<0.0001" if p < 1e-4 else f"{p:.4f}"
