"""What arms gain: the effect of every ablation, and speed-ups at equal loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import by_arm, drawable
from ngpt_lab.analysis.figures.style import COLOURS, REFERENCE_LINE, few_log_ticks, filled_panels, folded, panel_title

_LOWER, _HIGHER, _UNCLEAR = COLOURS[0], COLOURS[1], "0.45"
_NAME = 44
_ROOM = 0.8
_LINE = 0.17
"""Letters in a line of a name; the room between two names, in lines; the height of a line in inches."""


def ablation_effects(effects: pd.DataFrame, baseline: str, unit: str = "bits per byte") -> Figure | None:
    """Every arm's difference to the baseline with its interval, sorted, a panel a condition.

    Read off it: which parts matter. A full mark is significant after Holm's correction; a hollow grey one is not, and a grey
    bar shows the smallest effect that the seeds would have found. Columns arm, effect (arm - baseline), low, high,
    significant; `detectable` and `condition` where known. A missing bound draws a mark without an interval.
    """
    rows = drawable(effects, (), "effect")
    if rows.empty:
        return None
    conditions: list[Any] = list(dict.fromkeys(rows["condition"])) if "condition" in rows else [None]
    order = rows.groupby("arm")["effect"].mean().sort_values(ascending=False).index
    heights = _heights([str(arm) for arm in order])
    figure, places = filled_panels(len(conditions), len(conditions))
    figure.set_figheight(1.2 + _LINE * max(heights.values()))
    for axes, condition in zip(places, conditions, strict=True):
        _draw_effects(axes, rows if condition is None else rows[rows["condition"] == condition], heights, baseline)
        _names_axis(axes, heights, axes is places[0])
        axes.set_xlabel(f"difference to {baseline} ({unit})" if condition is None else f"difference ({unit})", parse_math=False)
        if condition is not None:
            panel_title(axes, str(condition))
    legend_below(figure)
    return figure


def _heights(names: Sequence[str]) -> dict[str, float]:
    """Where each name stands, from below, in lines: a folded one has room for all of its own."""
    lines = np.array([_ROOM + 1 + folded(name, _NAME).count("\n") for name in names])
    return dict(zip(names, np.cumsum(lines) - lines / 2, strict=True))


def _draw_effects(axes: Axes, rows: pd.DataFrame, places: Mapping[str, float], baseline: str) -> None:
    axes.axvline(0, **REFERENCE_LINE, label=f"{baseline} (left of it: lower loss)")
    heights = rows["arm"].map(places).to_numpy(float)
    if "detectable" in rows:
        wide = pd.to_numeric(rows["detectable"], errors="coerce").fillna(0).to_numpy(float)
        axes.barh(heights, 2 * wide, left=-wide, height=0.9, color="0.9", label="smallest effect these seeds would find")
        axes.use_sticky_edges = False  # a bar would otherwise touch the frame, as if cut
    significant = rows["significant"].fillna(False).astype(bool).to_numpy()
    below = rows["effect"].to_numpy() < 0
    kinds = [
        ("significantly lower", _LOWER, significant & below, True),
        ("significantly higher", _HIGHER, significant & ~below, True),
        ("no significant difference", _UNCLEAR, ~significant, False),
    ]
    for label, colour, chosen, full in kinds:
        if chosen.any():
            own = rows[chosen]
            bars = np.nan_to_num(np.abs([own["effect"] - own["low"], own["high"] - own["effect"]]).astype(float))
            face = colour if full else "white"
            axes.errorbar(
                own["effect"], heights[chosen], xerr=bars, fmt="o", color=colour, markerfacecolor=face, capsize=3, label=label
            )


def _names_axis(axes: Axes, heights: Mapping[str, float], named: bool) -> None:
    names = [folded(name, _NAME) if named else "" for name in heights]
    axes.set_yticks(list(heights.values()), names, fontsize=9, parse_math=False)
    axes.set_ylim(0, max(heights.values()) + min(heights.values()))
    axes.grid(False, axis="y")


def speed_ups(ratios: pd.DataFrame, baseline: str, arms: Sequence[str] = ()) -> Figure | None:
    """Effort of the baseline / effort of the arm at equal loss, in tokens, FLOPs and seconds, a panel each.

    Read off it: how many times faster an arm is (right of 1), and whether that survives the price of a step. An arm for
    which nothing is claimed is named as such. Columns arm, effort (tokens, FLOPs, seconds), ratio, low, high: NaN where
    not claimed.
    """
    claimed = drawable(ratios, arms, "ratio")
    if claimed.empty:
        return None
    rows = ratios[ratios["arm"].isin(arms)] if arms else ratios
    efforts = [effort for effort in dict.fromkeys(rows["effort"]) if effort in set(claimed["effort"])]
    names = [str(arm) for arm in dict.fromkeys([*arms, *rows["arm"]]) if arm in set(rows["arm"])]
    heights = _heights(names[::-1])
    figure, places = filled_panels(len(efforts), len(efforts))
    figure.set_figheight(1.2 + _LINE * max(heights.values()))
    reach = _reach(claimed)
    for axes, effort in zip(places, efforts, strict=True):
        axes.set_xscale("log")
        axes.set_xlim(reach)
        few_log_ticks(axes.xaxis)
        _draw_ratios(axes, claimed[claimed["effort"] == effort], heights, list(arms) or names)
        _names_axis(axes, heights, axes is places[0])
        panel_title(axes, str(effort))
    figure.supxlabel(
        f"effort of {baseline} / effort of the arm, at equal loss (above 1: arm faster)", fontsize=9, parse_math=False
    )
    return figure


def _reach(claimed: pd.DataFrame) -> tuple[float, float]:
    """From the lowest to the highest bound, 1 between them, with room for the numbers."""
    ends = claimed[["ratio", "low", "high"]].to_numpy(float)
    low, high = min(1.0, float(np.nanmin(ends))), max(1.0, float(np.nanmax(ends)))
    room = max(high / low, 1.5)
    return low / room**0.06, high * room**0.35


def _draw_ratios(axes: Axes, rows: pd.DataFrame, heights: Mapping[str, float], order: Sequence[str]) -> None:
    axes.axvline(1, **REFERENCE_LINE)
    for name, style, own in by_arm(rows, order):
        reading = own.iloc[0]
        ratio, height = float(reading["ratio"]), heights[name]
        low, high = (float(bound) if np.isfinite(bound) else ratio for bound in (reading["low"], reading["high"]))
        axes.barh([height], [ratio - 1], left=1, height=1.1, color=style.colour, alpha=0.35)
        axes.errorbar([ratio], [height], xerr=[[ratio - low], [high - ratio]], fmt=style.marker, color=style.colour, capsize=4)
        _write(axes, max(high, 1.0), height, f"{ratio:.2f}x", "black")
    for name, height in heights.items():
        if name not in set(rows["arm"]):
            _write(axes, 1.0, height, "not claimed", "0.4")


def _write(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=9, color=colour)
