"""What the trials of a search show: loss against the learning rate, and against every key that was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.optimum import key_of_marks, mark_diverged, mark_optimum
from ngpt_lab.analysis.figures.series import arm_order, by_arm, drawable
from ngpt_lab.analysis.figures.style import MARKERS, ArmStyle, filled_panels, folded, panel_title, short_count
from ngpt_lab.analysis.trials import at_edge
from ngpt_lab.analysis.wording import short_key

_LOSS = "validation loss (nats per token)"
_LOG_FROM = 3
"""Values that span this factor stand on a log axis."""
_MOST_TICKS = 6


def learning_rate_curves(trials: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Final validation loss against the initial learning rate, a line a budget, a panel an arm (arXiv 2410.01131, Fig. 7).

    Read off it: whether every budget's optimum (star) lies inside what was tried, whether it moves with the budget, and
    how much a wrong rate costs. A white star sits at the edge of its grid; a cross at the top is a trial that diverged.
    Columns arm, seed, budget, lr, val_loss; `group` puts several arms into one panel, `condition` parts panels.
    """
    rows = _trials(trials, arms, "budget", "lr")
    if rows.empty or not np.isfinite(rows["val_loss"]).any():
        return None
    keys = rows["group"] if "group" in rows else rows["arm"]
    if "condition" in rows and rows["condition"].nunique() > 1:
        keys = keys + ", " + rows["condition"].astype(str)
    figure, places = filled_panels(len(set(keys)))
    budgets = sorted(rows["budget"].unique())
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(budgets)))
    marks: list[bool | None] = []
    for axes, key in zip(places, dict.fromkeys(keys), strict=True):
        here = rows[keys == key]
        for _, style, own in by_arm(here, arm_order(rows, arms)):
            for budget, line in own.groupby("budget"):
                place, label = budgets.index(budget), f"{short_count(budget)} tokens"
                marks.append(_draw_rates(axes, line, shades[place], place, style.marker, label))
        panel_title(axes, str(key))
        _value_axis(axes, here["lr"])
        axes.set_xlabel("learning rate")
    for axes in places[::3]:
        axes.set_ylabel(_LOSS)
    diverged = bool((~np.isfinite(rows["val_loss"])).any())
    legend_below(figure, key_of_marks(False in marks, True in marks, diverged))
    return figure


def _trials(trials: pd.DataFrame, arms: Sequence[str], *columns: str) -> pd.DataFrame:
    """Trials with finite settings; a loss that is no number stays, as NaN: that trial diverged."""
    if trials.empty:
        return trials
    losses = pd.to_numeric(trials["val_loss"], errors="coerce").astype(float)
    return drawable(trials.assign(val_loss=losses.where(np.isfinite(losses))), arms, *columns)


def _draw_rates(axes: Axes, rows: pd.DataFrame, colour: Any, place: int, marker: str, label: str) -> bool | None:
    """One budget's line; whether its optimum lies at the edge, None where every trial diverged."""
    mean = rows.groupby("lr")["val_loss"].mean(skipna=False)
    good = mean.dropna()
    axes.plot(good.index, good, marker=marker, markersize=5, color=colour, linewidth=1.5, label=label)
    if len(good) < len(mean):
        mark_diverged(axes, mean.index[mean.isna()].to_series(), colour, place)
    if good.empty:
        return None
    best = good.idxmin()
    edge = at_edge(best, rows["lr"])
    mark_optimum(axes, float(str(best)), float(good.min()), colour, edge)
    return edge


def _value_axis(axes: Axes, values: pd.Series[float]) -> None:
    """Ticks at values that were tried, on a log axis where they span a factor."""
    tried = sorted(values.unique())
    if tried[0] > 0 and tried[-1] / tried[0] >= _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(tried[:: -(-len(tried) // _MOST_TICKS)]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelrotation=35 if len(tried) > 3 else 0)
    axes.margins(x=0.08, y=0.1)


def tuning_curves(trials: pd.DataFrame, arms: Sequence[str] = (), keys: Sequence[str] = ()) -> Figure | None:
    """Loss of every trial against each tuned key, a column of panels a key and a row a budget; the chosen trial starred.

    Read off it: whether each arm's choice lies inside what was tried (full star) or at its edge (white star), and how flat
    the loss is there. Lines join the best trial at each value; a cross at the top is a trial that diverged. Columns arm,
    seed, budget, val_loss and one per key; `condition` parts rows; `chosen` (true or false) overrides the lowest mean loss.
    `keys`: all dotted columns that vary by default, else lr.
    """
    rows = _trials(trials, arms, "budget")
    keys = list(keys) or _varied(rows)
    if rows.empty or not keys or not np.isfinite(rows["val_loss"]).any():
        return None
    parts = ["condition", "budget"] if "condition" in rows and rows["condition"].nunique() > 1 else ["budget"]
    stages = list(rows.groupby(parts, sort=False))
    drawn = [
        (stage, key, here[here[key].notna()]) for stage, here in stages for key in keys if here[key].nunique(dropna=True) > 1
    ]
    if not drawn:
        return None
    columns = min(len(keys), 3)
    figure, places = filled_panels(len(drawn), columns)
    marks: list[bool | None] = []
    for axes, (stage, key, here) in zip(places, drawn, strict=True):
        numeric = _is_numeric(here[key])
        here = here.assign(x=here[key].astype(float) if numeric else here[key].astype(str))
        for arm, style, own in by_arm(here, arm_order(rows, arms)):
            marks.append(_draw_trials(axes, own, keys, style, arm))
        _name_panel(axes, stage if len(stages) > 1 else (), short_key(key, keys))
        if numeric:
            _value_axis(axes, here["x"])
    for axes in places[::columns]:
        axes.set_ylabel(_LOSS)
    legend_below(figure, key_of_marks(False in marks, True in marks, bool(rows["val_loss"].isna().any())))
    return figure


def _varied(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return []
    dotted = [str(name) for name in rows.columns if "." in str(name) and rows[name].nunique() > 1]
    return dotted or (["lr"] if "lr" in rows and rows["lr"].nunique() > 1 else [])


def _is_numeric(values: pd.Series[Any]) -> bool:
    if pd.api.types.is_bool_dtype(values):
        return False
    return bool(pd.to_numeric(values, errors="coerce").notna().all())


def _name_panel(axes: Axes, stage: tuple[Any, ...], key: str) -> None:
    axes.set_xlabel(folded(key, 34), parse_math=False)
    if stage:
        *condition, budget = stage
        panel_title(axes, ", ".join([*map(str, condition), f"{short_count(budget)} tokens"]))


def _draw_trials(axes: Axes, rows: pd.DataFrame, keys: Sequence[str], style: ArmStyle, label: str) -> bool | None:
    """One arm's trials at one budget; whether the chosen one lies at the edge, None where all diverged."""
    means = _means(rows, [*keys, "x"])
    good = means.dropna(subset=["val_loss"])
    axes.plot(good["x"], good["val_loss"], style.marker, color=style.colour, alpha=0.45, markersize=5)
    lowest = good.groupby("x")["val_loss"].min()
    # Words have no order that a line could follow.
    line_style = style.line if pd.api.types.is_numeric_dtype(lowest.index) else "none"
    line: dict[str, Any] = {"linestyle": line_style, "marker": style.marker, "markersize": 5, "linewidth": 1.5}
    axes.plot(lowest.index, lowest, color=style.colour, label=label, **line)
    if len(good) < len(means):
        mark_diverged(axes, means.loc[means["val_loss"].isna(), "x"], style.colour, MARKERS.index(style.marker))
    if good.empty:
        return None
    eligible = good.loc[good["chosen"]] if good["chosen"].any() else good
    best = eligible.loc[eligible["val_loss"] == eligible["val_loss"].min()].to_dict("records")[0]
    edge = at_edge(best["x"], rows["x"])
    mark_optimum(axes, best["x"], best["val_loss"], style.colour, edge)
    return edge


def _means(rows: pd.DataFrame, settings: list[str]) -> pd.DataFrame:
    """One row a trial: its mean loss over seeds (NaN where one diverged) and whether it was chosen."""
    chosen = rows["chosen"].astype(str).str.lower().isin(["true", "1"]) if "chosen" in rows else False
    grouped = rows.assign(chosen=chosen).groupby(settings, dropna=False, sort=False)
    losses = grouped["val_loss"].agg(lambda values: values.mean(skipna=False))
    return losses.to_frame().join(grouped["chosen"].any()).reset_index()
