"""What all figures share: colours that survive colour blindness and grey print, axes, number formats."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter, NullLocator

DPI = 100
WIDTH, PANEL_HEIGHT = 9.6, 3.2
SINGLE = (9.0, 3.6)
LIGHT = 0.3
REFERENCE_LINE: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": "--"}
# Okabe and Ito: told apart with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks in every figure."""

    colour: str
    marker: str


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """A colour and a marker for each arm, by its place in the list."""
    return {arm: ArmStyle(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]) for place, arm in enumerate(arms)}


def panels(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A grid of bare panels."""
    size = SINGLE if rows * columns == 1 else (WIDTH if columns > 1 else SINGLE[0], PANEL_HEIGHT * rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, [list(row) for row in grid]


def single() -> tuple[Figure, Axes]:
    """One wide panel."""
    figure, grid = panels(1, 1)
    return figure, grid[0][0]


def tokens_axis(axes: Axes) -> None:
    """Tokens trained, from zero, in thousands or millions."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens trained")


def from_zero(axes: Axes) -> None:
    """The y axis from zero to a little above the highest value, so that no mark is cut."""
    axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1.0)


def whole_decades(axes: Axes, values: pd.Series[float]) -> None:
    """A log y axis from the power of ten below all values to the one above."""
    axes.set_yscale("log")
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))


def budgets_axis(axes: Axes, budgets: Sequence[int]) -> None:
    """Budgets on a log axis, a tick at each."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(budgets)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="", places=None))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(budgets) / 1.3, max(budgets) * 1.3)
    axes.set_xlabel("tokens trained (one finished run a point)")


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


def layer_colours(layers: Sequence[int]) -> dict[int, tuple[float, float, float, float]]:
    """A dark-to-light colour for each layer, first to last."""
    places = np.linspace(0.0, 0.85, len(layers)) if len(layers) > 1 else [0.4]
    colours = matplotlib.colormaps["viridis"](places)
    return {layer: tuple(colour) for layer, colour in zip(layers, colours, strict=True)}


def legend(axes: Axes) -> None:
    """A plain legend where it hides least."""
    axes.legend(frameon=False, fontsize=9)


def legend_beside(axes: Axes) -> None:
    """A plain legend to the right of the panel, where it hides nothing."""
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
