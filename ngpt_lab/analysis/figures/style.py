"""What all figures share: colours that survive colour blindness and grey print, panels, axes, number formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullFormatter, NullLocator

DPI = 100
WIDTH, PANEL_HEIGHT = 9.6, 3.2
SINGLE = (9.0, 3.6)
LIGHT = 0.3
REFERENCE_LINE: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": "--"}
# Okabe and Ito: told apart with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
# As many as share no factor with the colours: the first 56 arms differ in colour or marker, neighbours in both.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class ArmStyle:
    """How one arm looks in every figure."""

    colour: str
    marker: str
    line: Any = "-"


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """A colour, a marker and a kind of line for each arm, by its place in the list."""
    return {
        arm: ArmStyle(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], LINES[place // len(COLOURS) % len(LINES)])
        for place, arm in enumerate(arms)
    }


def panels(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A grid of bare panels."""
    size = SINGLE if rows * columns == 1 else (WIDTH if columns > 1 else SINGLE[0], PANEL_HEIGHT * rows)
    # White of its own: a figure is put on dark pages too.
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if columns > 2:
            axes.xaxis.label.set_size(9)
            axes.yaxis.label.set_size(9)
            axes.tick_params(labelsize=9)
    return figure, [list(row) for row in grid]


def filled_panels(count: int, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """`count` panels in rows of at most `columns`, with none left over."""
    columns = min(count, columns)
    figure, grid = panels(-(-count // columns), columns)
    places = [axes for row in grid for axes in row]
    for axes in places[count:]:
        axes.remove()
    return figure, places[:count]


def single() -> tuple[Figure, Axes]:
    """One wide panel."""
    figure, grid = panels(1, 1)
    return figure, grid[0][0]


def tokens_axis(axes: Axes) -> None:
    """Tokens trained, from zero, in thousands or millions."""
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens trained")


def short_count(count: Any) -> str:
    """A number of tokens in a few letters: 102.4k."""
    return EngFormatter(sep="")(float(count))


def panel_title(axes: Axes, text: str, colour: str = "black") -> None:
    """A title at the left of a panel, folded where it is long."""
    axes.set_title(folded(text, 42), fontsize=10, loc="left", color=colour, parse_math=False)


def folded(name: str, width: int) -> str:
    """A long name on several lines, parted after its hyphens, pluses, underscores and spaces where it can be."""
    lines = [""]
    for piece in re.findall(rf"[^-+_ ]{{1,{width - 1}}}[-+_ ]?|[-+_ ]", name):
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip(" ") for line in lines)


def from_zero(axes: Axes) -> None:
    """The y axis from zero to a little above the highest value, so that no mark is cut."""
    axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1.0)


def whole_decades(axes: Axes, values: pd.Series[float]) -> None:
    """A log y axis from the power of ten below all values to the one above."""
    axes.set_yscale("log")
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))


def few_log_ticks(axis: Axis) -> None:
    """At most six labelled ticks on a log axis: powers of ten, or closer where the axis is short."""
    low, high = sorted(axis.get_view_interval())
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        inside = [digit * 10.0**power for power in range(-12, 30) for digit in digits if low <= digit * 10.0**power <= high]
        if len(inside) > 2:
            break
    axis.set_major_locator(FixedLocator(inside[:: -(-len(inside) // 6)] if inside else [low, high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: short_count(value) if value >= 1000 else f"{value:g}")


def budgets_axis(axes: Axes, budgets: Sequence[int]) -> None:
    """Budgets on a log axis, a tick at each."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(budgets)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="", places=None))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(budgets) / 1.3, max(budgets) * 1.3)
    axes.set_xlabel("tokens trained (one finished run a point)")


def layer_colours(layers: Sequence[int]) -> dict[int, tuple[float, float, float, float]]:
    """A dark-to-light colour for each layer, first to last."""
    places = np.linspace(0.0, 0.85, len(layers)) if len(layers) > 1 else [0.4]
    colours = matplotlib.colormaps["viridis"](places)
    return {layer: tuple(colour) for layer, colour in zip(layers, colours, strict=True)}
