"""Loss while training, against the budget, and against what the training costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, draw_series, drawable
from ngpt_lab.analysis.figures.style import (
    ArmStyle,
    budgets_axis,
    few_log_ticks,
    filled_panels,
    folded,
    panel_title,
    short_count,
    single,
    tokens_axis,
)
from ngpt_lab.analysis.frames import MEASURES
from ngpt_lab.analysis.statistics import paired_interval

_ASIDE, _ALL_ASIDE = 0.02, 0.2
"""How far arms stand apart as a share of the x value: each from the next, and all of them together."""
_PALEST = 0.6
EFFORTS = {
    "tokens": ("tokens", "tokens trained"),
    "seconds": ("seconds_per_token", "seconds of training\n(tokens x measured seconds per token)"),
    "FLOPs": ("flops_per_token", "FLOPs of training"),
}
"""Kind of effort -> the column it needs beside tokens, and its axis label."""


def validation_during_training(history: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Validation loss during training of runs with different budgets (arXiv 2410.01131, Fig. 1).

    Read off it: how a run of one arm with a small budget ends beside a run of the other with a large one. Only the marked
    ends are finished runs. Columns arm, seed, budget, tokens, value (nats per token); the largest budget is darkest.
    """
    rows = drawable(history, arms, "budget", "tokens", "value")
    if rows.empty:
        return None
    figure, axes = single()
    budgets = sorted(rows["budget"].unique())
    for arm, style, own in by_arm(rows, arms):
        for budget, runs in own.groupby("budget"):
            tint = ArmStyle(_tint(style.colour, budgets.index(budget), len(budgets)), style.marker, style.line)
            end = len(runs["tokens"].unique()) - 1
            draw_series(axes, runs, "tokens", "value", tint, f"{arm}, {short_count(budget)} tokens", markevery=[end])
    tokens_axis(axes)
    axes.set_ylabel("validation loss (nats per token)")
    legend_below(figure)
    return figure


def _tint(colour: str, place: int, count: int) -> str:
    """The colour, mixed with white for all but the last of `count`."""
    white = _PALEST * (1 - place / max(1, count - 1)) if count > 1 else 0.0
    red, green, blue = (white + (1 - white) * part for part in to_rgb(colour))
    return to_hex((red, green, blue))


def loss_by_budget(finals: pd.DataFrame, arms: Sequence[str] = (), measure: str = "val/loss") -> Figure | None:
    """Final loss against the token budget, a panel a condition (arXiv 2410.01131, Fig. 2).

    Read off it: how many tokens each arm needs for the same loss (along a horizontal), at every context length. A dot is
    one finished run; bars are 95% t intervals over seeds. Columns arm, seed, budget, `measure`; `condition` if several.
    """
    rows = drawable(finals, arms, "budget", measure)
    if rows.empty:
        return None
    conditions = dict.fromkeys(rows["condition"]) if "condition" in rows else {"": None}
    figure, places = filled_panels(len(conditions))
    order = arm_order(rows, arms)
    for axes, condition in zip(places, conditions, strict=True):
        here = rows[rows["condition"] == condition] if "condition" in rows else rows
        for arm, style, own in by_arm(here, order):
            _draw_finals(axes, own.assign(value=own[measure]), style, _aside(arm, order), arm)
        budgets = sorted(here["budget"].unique())
        budgets_axis(axes, budgets)
        if len(places) > 1:
            panel_title(axes, str(condition))
            axes.set_xlabel("tokens trained")
            axes.tick_params(axis="x", labelrotation=35 if len(budgets) > 3 else 0)
    for axes in places[::3]:
        axes.set_ylabel(_loss_label(measure))
    legend_below(figure)
    return figure


def _aside(arm: str, order: Sequence[str]) -> float:
    step = min(_ASIDE, _ALL_ASIDE / len(order))
    return 1 + step * (order.index(arm) - (len(order) - 1) / 2)


def _draw_finals(axes: Axes, rows: pd.DataFrame, style: ArmStyle, aside: float, arm: str) -> None:
    intervals = {budget: paired_interval(list(own)) for budget, own in rows.groupby("budget")["value"]}
    x = np.array(list(intervals), dtype=float) * aside
    axes.plot(rows["budget"] * aside, rows["value"], style.marker, color=style.colour, alpha=0.6, markersize=5)
    axes.errorbar(
        x,
        [interval.mean for interval in intervals.values()],
        yerr=[np.nan_to_num(interval.half_width) for interval in intervals.values()],
        color=style.colour,
        linestyle=style.line,
        linewidth=1.4,
        elinewidth=1,
        capsize=3,
    )
    _name(axes, style, arm)


def _name(axes: Axes, style: ArmStyle, arm: str) -> None:
    """A legend entry of mark and line, which are drawn apart."""
    axes.plot([], [], style.marker, color=style.colour, linestyle=style.line, markersize=5, label=arm)


def _loss_label(measure: str) -> str:
    split, unit = MEASURES.get(measure, ("", measure))
    return f"final {split} loss ({unit})" if split else f"final {unit}"


def loss_by_effort(finals: pd.DataFrame, arms: Sequence[str] = (), measure: str = "val/loss") -> Figure | None:
    """Final loss against tokens, wall-clock and FLOPs, a panel each; a dot is one finished run, lines join the means.

    Read off it: whether an advantage in tokens survives the cost of a step. Columns arm, seed, tokens, `measure`, and
    seconds_per_token (measured in alternation, not the wall-clock of runs that shared a machine) and flops_per_token
    where known; a kind of effort that is not known has no panel.
    """
    found = {kind: rows for kind in EFFORTS if not (rows := _with_effort(finals, arms, measure, kind)).empty}
    if not found:
        return None
    figure, places = filled_panels(len(found))
    for axes, (kind, rows) in zip(places, found.items(), strict=True):
        axes.set_xscale("log")
        for arm, style, own in by_arm(rows, arm_order(finals, arms)):
            axes.plot(own["effort"], own["value"], style.marker, color=style.colour, alpha=0.6, markersize=5)
            mean = own.groupby("tokens")[["effort", "value"]].mean()
            axes.plot(mean["effort"], mean["value"], color=style.colour, linestyle=style.line, linewidth=1.4)
            _name(axes, style, arm)
        axes.set_xlabel(EFFORTS[kind][1])
        axes.margins(x=0.08, y=0.08)
        few_log_ticks(axes.xaxis)
    places[0].set_ylabel(folded(_loss_label(measure), 40))
    legend_below(figure)
    return figure


def _with_effort(finals: pd.DataFrame, arms: Sequence[str], measure: str, kind: str) -> pd.DataFrame:
    column = EFFORTS[kind][0]
    if column not in finals:
        return finals.iloc[:0]
    rows = drawable(finals, arms, "tokens", column, measure)
    if rows.empty:
        return rows
    effort = rows["tokens"] if column == "tokens" else rows["tokens"] * rows[column]
    return rows.assign(effort=effort, value=rows[measure])
