"""Figures that set arms beside each other: losses, their differences, tokens and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ngpt_lab.analysis.equal_loss import EqualLoss
from ngpt_lab.analysis.figures.legends import legend, legend_below, legend_beside
from ngpt_lab.analysis.figures.series import seed_lines
from ngpt_lab.analysis.figures.style import (
    REFERENCE_LINE,
    ArmStyle,
    arm_styles,
    budgets_axis,
    folded,
    from_zero,
    panels,
    single,
    tokens_axis,
)
from ngpt_lab.analysis.frames import MEASURES, history, paired_difference
from ngpt_lab.analysis.runs import Run, at_full_budget
from ngpt_lab.analysis.statistics import Interval

_SPREAD, _ALL = 0.02, 0.4
"""How far arms stand apart as a share of the x value, so that dots do not hide each other: each from the next, and all."""


def final_loss(finals: pd.DataFrame, arms: Sequence[str], measure: str = "val/bits_per_byte") -> Figure | None:
    """Final loss against budget, a dot a run, a line through the means; `finals` from `final_losses`."""
    rows = finals[finals["arm"].isin(arms)].dropna(subset=[measure])
    if rows.empty:
        return None
    figure, axes = single()
    for place, (arm, style) in enumerate(arm_styles(arms).items()):
        own = rows[rows["arm"] == arm]
        aside = _aside(place, len(arms), _SPREAD)
        axes.plot(own["budget"] * aside, own[measure], style.marker, color=style.colour, alpha=0.6, label=arm)
        mean = own.groupby("budget")[measure].mean()
        axes.plot(mean.index * aside, mean, color=style.colour, linestyle=style.line, linewidth=1.5, marker="_", markersize=16)
    budgets_axis(axes, sorted(rows["budget"].unique()))
    split, unit = MEASURES[measure]
    axes.set_ylabel(f"final {split} loss ({unit})")
    legend_beside(axes)
    return figure


def _aside(place: int, count: int, step: float) -> float:
    return 1 + min(step, _ALL / count) * (place - (count - 1) / 2)


def paired_differences(finals: pd.DataFrame, arms: Sequence[str]) -> Figure | None:
    """Candidate - baseline (the first arm) per budget with its t interval, on both splits, bits per byte."""
    budgets = sorted(finals["budget"].unique())
    drawn = [
        (measure, arm, style, points)
        for measure in ("test/bits_per_byte", "val/bits_per_byte")
        for arm, style in list(arm_styles(arms).items())[1:]
        if (points := _difference_points(finals, arm, arms[0], budgets, measure))
    ]
    if not drawn:
        return None
    figure, axes = single()
    axes.axhline(0, **REFERENCE_LINE)
    for place, (measure, arm, style, points) in enumerate(drawn):
        aside = _aside(place, len(drawn), 2 * _SPREAD)
        _draw_intervals(axes, points, style, aside, f"{arm} - {arms[0]}, {MEASURES[measure][0]}", measure)
    budgets_axis(axes, budgets)
    axes.set_ylabel("difference (bits per byte)\nbelow 0: lower loss than the baseline")
    legend_beside(axes)
    return figure


def _difference_points(
    finals: pd.DataFrame, candidate: str, baseline: str, budgets: Sequence[int], measure: str
) -> dict[int, Interval]:
    intervals = {budget: paired_difference(finals, candidate, baseline, budget, measure) for budget in budgets}
    return {budget: interval for budget, interval in intervals.items() if interval is not None}


def _draw_intervals(
    axes: Axes, points: Mapping[int, Interval], style: ArmStyle, aside: float, label: str, measure: str
) -> None:
    axes.errorbar(
        [budget * aside for budget in points],
        [interval.mean for interval in points.values()],
        yerr=[interval.half_width for interval in points.values()],
        fmt=style.marker,
        color=style.colour,
        markerfacecolor=style.colour if measure.startswith("test") else "white",
        capsize=4,
        label=label,
    )


def loss_curves(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Training and validation loss against tokens, full-budget runs: every seed light, their mean on top."""
    names = {"train/loss": "training", "val/loss": "validation"}
    shown = [run for run in at_full_budget(runs) if run.arm in arms]
    rows = {name: frame for key, name in names.items() if not (frame := history(shown, key)).empty}
    if not rows:
        return None
    figure, [row] = panels(1, len(rows))
    for axes, (name, frame) in zip(row, rows.items(), strict=True):
        for arm, style in arm_styles(arms).items():
            own = frame[frame["arm"] == arm]
            if not own.empty:
                seed_lines(axes, own, style.colour, arm)
        tokens_axis(axes)
        axes.set_ylabel(f"{name} loss (nats per token)")
    legend(row[0])
    return figure


def tokens_to_equal_loss(readings: Mapping[str, EqualLoss], arms: Sequence[str]) -> Figure | None:
    """Token ratio baseline / candidate: a light dot a seed, the mean with its interval; only what is claimed."""
    claimed = {arm: reading for arm, reading in readings.items() if reading.reason is None}
    if not claimed:
        return None
    figure, axes = single()
    figure.set_figheight(1.6 + 0.6 * len(claimed))
    axes.axvline(1, **REFERENCE_LINE)
    styles = arm_styles(arms)
    for height, (arm, reading) in enumerate(claimed.items()):
        style = styles[arm]
        seeds = [point.ratio for point in reading.per_seed.values()]
        axes.plot(seeds, [height - 0.18] * len(seeds), style.marker, color=style.colour, alpha=0.4)
        bounds = [[reading.ratio - reading.low], [reading.high - reading.ratio]]
        axes.errorbar([reading.ratio], [height], xerr=bounds, fmt=style.marker, color=style.colour, capsize=4)
    axes.set_yticks(range(len(claimed)), [folded(arm, 34) for arm in claimed], parse_math=False)
    axes.set_ylim(-0.6, len(claimed) - 0.4)
    axes.set_xlabel(f"tokens that {arms[0]} needs / tokens that the arm needs, at equal loss (above 1: arm faster)")
    return figure


def step_cost(seconds: Mapping[str, Sequence[float]], arms: Sequence[str], unit: str) -> Figure | None:
    """Cost of a step in each interleaved round, and its ratio to the baseline (the first arm)."""
    present = {arm: style for arm, style in arm_styles(arms).items() if arm in seconds}
    if arms[0] not in present:
        return None
    figure, [row] = panels(1, 2 if len(present) > 1 else 1)
    for arm, style in present.items():
        rounds = np.arange(1, len(seconds[arm]) + 1)
        row[0].plot(rounds, seconds[arm], style.marker, color=style.colour, markersize=5, label=arm)
        row[0].axhline(float(np.median(seconds[arm])), color=style.colour, linewidth=1)
        if arm != arms[0]:
            ratios = np.divide(seconds[arm], seconds[arms[0]])
            row[1].plot(rounds, ratios, style.marker, color=style.colour, markersize=5)
            row[1].axhline(float(np.median(ratios)), color=style.colour, linewidth=1)
    from_zero(row[0])
    row[0].set_ylabel(unit)
    for axes in row:
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(row) > 1:
        row[1].set_ylabel(folded(f"step cost / step cost of {arms[0]}", 34), parse_math=False)
    legend_below(figure)
    return figure
