"""What more and more context does to the loss, within the length that training had and beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, draw_series, drawable
from ngpt_lab.analysis.figures.style import LIGHT, REFERENCE_LINE, few_log_ticks, filled_panels, panel_title

_STEEP = 5
"""Perplexities that span this factor stand on a log axis."""


def perplexity_by_length(perplexities: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Perplexity against the length of the text read, a panel a training length (arXiv 2410.01131, Fig. 13).

    Read off it: whether a model still reads texts longer than those it was trained on (right of the dashed line). Columns
    arm, seed, length, perplexity; `trained_length` where known.
    """
    rows = drawable(perplexities, arms, "length", "perplexity")
    if rows.empty:
        return None
    figure, panels = _panels(rows)
    for axes, trained, here in panels:
        for arm, style, own in by_arm(here, arm_order(rows, arms)):
            draw_series(axes, own, "length", "perplexity", style, arm)
        if here["perplexity"].max() > _STEEP * here["perplexity"].min() > 0:
            axes.set_yscale("log")
            few_log_ticks(axes.yaxis)
        _finish(axes, trained, here)
    for axes, *_ in panels[::3]:
        axes.set_ylabel("perplexity")
    legend_below(figure)
    return figure


def loss_change_by_length(changes: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """How far the loss is above that of a text as long as in training, on the same tokens, a panel a training length.

    Read off it: whether the context beyond the dashed line helps (below 0), does nothing or harms (above 0); a bar is a 95%
    interval over the places of the text. Columns arm, seed, length, change, low, high; `trained_length` where known.
    """
    rows = drawable(changes, arms, "length", "change")
    if rows.empty:
        return None
    figure, panels = _panels(rows)
    for axes, trained, here in panels:
        axes.axhline(0, color=REFERENCE_LINE["color"], linewidth=0.8)
        for arm, style, own in by_arm(here, arm_order(rows, arms)):
            draw_series(axes, own, "length", "change", style, arm)
            bars = [own["change"] - own["low"], own["high"] - own["change"]]
            alpha = LIGHT if own["seed"].nunique() > 1 else 1.0
            axes.errorbar(own["length"], own["change"], yerr=bars, fmt="none", color=style.colour, capsize=3, alpha=alpha)
        _finish(axes, trained, here)
    for axes, *_ in panels[::3]:
        axes.set_ylabel("change of the loss (nats per token)")
    legend_below(figure)
    return figure


def _panels(rows: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, Any, pd.DataFrame]]]:
    """A panel for each training length, that length where it is known, and the rows that belong there."""
    known = "trained_length" in rows and rows["trained_length"].notna().any()
    groups: list[tuple[Any, pd.DataFrame]] = list(rows.groupby("trained_length")) if known else [(None, rows)]
    figure, places = filled_panels(len(groups))
    return figure, [(axes, trained, here) for axes, (trained, here) in zip(places, groups, strict=True)]


def _finish(axes: Axes, trained: Any, rows: pd.DataFrame) -> None:
    """Mark the training length, and name the lengths."""
    if trained is not None:
        axes.axvline(float(trained), **REFERENCE_LINE, label="trained length")
        panel_title(axes, f"trained on {int(trained)} tokens")
    _lengths_axis(axes, rows)


def _lengths_axis(axes: Axes, rows: pd.DataFrame) -> None:
    lengths = sorted(rows["length"].unique())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(lengths[:: -(-len(lengths) // 7)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelrotation=35 if len(lengths) > 4 else 0)
    axes.set_xlabel("length of the text (tokens)")
