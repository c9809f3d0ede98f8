"""An arm's rows on a panel: every seed light under the mean over seeds, or how its values are spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ngpt_lab.analysis.figures.style import LIGHT, MARKERS, ArmStyle, arm_styles

_MOST_POINTS = 400
_MARKS = 12
_MOST_BINS = 60


def drawable(rows: pd.DataFrame, arms: Sequence[str], *columns: str) -> pd.DataFrame:
    """The rows of these arms (all, where none are named) with a finite number in every one of `columns`."""
    if rows.empty:
        return rows
    numbers = rows[list(dict.fromkeys(columns))].apply(pd.to_numeric, errors="coerce").astype(float)
    kept = np.isfinite(numbers).all(axis=1)
    if arms:
        kept &= rows["arm"].isin(arms)
    return rows.assign(**{name: numbers[name] for name in numbers})[kept]


def by_arm(rows: pd.DataFrame, arms: Sequence[str]) -> Iterator[tuple[str, ArmStyle, pd.DataFrame]]:
    """Every arm that has rows, with its style and its rows; without `arms`, in the order of the rows."""
    for arm, style in arm_styles(arm_order(rows, arms)).items():
        own = rows[rows["arm"] == arm]
        if not own.empty:
            yield arm, style, own


def arm_order(rows: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """`arms`, or the arms of the rows in their order."""
    return list(arms) or [str(arm) for arm in dict.fromkeys(rows["arm"])]


def in_order(rows: pd.DataFrame, column: str, order: Sequence[str]) -> list[str]:
    """Those of `order` that the column holds."""
    held = set(rows[column]) if len(rows) else set()
    return [name for name in order if name in held]


def draw_series(axes: Axes, rows: pd.DataFrame, x: str, y: str, style: ArmStyle, label: str, **line: Any) -> None:
    """A light line a seed and a marked line through their means; rows of equal seed and x are averaged first."""
    by_seed = rows.pivot_table(index=x, columns="seed", values=y)
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.line} | line
    if len(by_seed.columns) > 1:
        for seed in by_seed:
            own = _thinned(by_seed[seed].dropna())
            axes.plot(own.index, own, **look | {"alpha": LIGHT, "linewidth": 0.8})
    shared = by_seed.dropna()
    mean = _thinned((by_seed if shared.empty else shared).mean(axis=1))
    marks: dict[str, Any] = {
        "marker": style.marker,
        "markersize": 4.5,
        "markevery": _places(len(mean), style),
        "linewidth": 1.6,
    }
    axes.plot(mean.index, mean, **marks | look, label=label)


def _places(count: int, style: ArmStyle) -> tuple[int, int]:
    """Which points of a long line are marked: another set for each marker, so that lines on one another both show."""
    every = max(1, count // _MARKS)
    return MARKERS.index(style.marker) * every // len(MARKERS), every


def _thinned(values: pd.Series[float]) -> pd.Series[float]:
    """At most so many points as a panel can show, evenly taken, both ends among them."""
    if len(values) <= _MOST_POINTS:
        return values
    return values.iloc[np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))]


def draw_density(axes: Axes, values: ArrayLike, style: ArmStyle, label: str) -> None:
    """How values are spread, as a stepped line of unit area; values that are all alike are an upright line."""
    numbers = np.asarray(values, dtype=float)
    look = {"color": style.colour, "linestyle": style.line, "linewidth": 1.6, "label": label}
    low, high = numbers.min(), numbers.max()
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        axes.axvline(float(numbers.mean()), **look)
        return
    heights, edges = np.histogram(numbers, bins=min(_MOST_BINS, max(8, int(numbers.size**0.5))), density=True)
    axes.plot(np.repeat(edges, 2), np.concatenate([[0], np.repeat(heights, 2), [0]]), **look)


def by_layer(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows with a column `place` for an axis over layers, and its label: a share where arms differ in depth."""
    if rows.groupby("arm")["layer"].max().nunique() == 1:
        return rows.assign(place=rows["layer"]), "layer (0 is the first)"
    return with_depth(rows).rename(columns={"depth": "place"}), "layer (0 first, 1 last)"


def with_depth(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `depth`: the layer as a share of the arm's layers, 0 the first and 1 the last."""
    last = rows.groupby("arm")["layer"].transform("max").clip(lower=1)
    return rows.assign(depth=rows["layer"] / last)


def seed_lines(axes: Axes, rows: pd.DataFrame, colour: str, label: str) -> None:
    """Every seed's line, light, under the mean over seeds; `rows` has seed, tokens, value."""
    for _, line in rows.groupby("seed"):
        axes.plot(line["tokens"], line["value"], color=colour, alpha=LIGHT, linewidth=0.8)
    mean = mean_over_seeds(rows)
    marker = "o" if len(mean) <= 12 else None
    axes.plot(mean.index, mean, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)


def mean_over_seeds(rows: pd.DataFrame) -> pd.Series[float]:
    """Mean at the token counts that every seed logged, or at all counts where no count is shared."""
    by_seed = rows.pivot_table(index="tokens", columns="seed", values="value")
    shared = by_seed.dropna()
    return (by_seed if shared.empty else shared).mean(axis=1)
