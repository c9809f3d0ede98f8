"""The eigen learning rates of every channel and layer over training, as heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.series import drawable, in_order
from ngpt_lab.analysis.figures.style import DPI, WIDTH

SUBLAYERS = {"attention_alpha": "attention", "mlp_alpha": "MLP"}
_FEW, _MANY = 6, 8
"""Panels in a row, of up to two rows of layers and of more."""
_PANEL, _TOP, _BOTTOM = 1.6, 0.3, 0.55
"""Inches."""


def alpha_over_training(history: pd.DataFrame, arm: str | None = None, seed: int | None = None) -> Figure | None:
    """Every channel's eigen learning rate over training: a panel a layer, attention above, MLP below.

    Read off it: which share of the channels opened, closed or turned negative, when, and in which layers. One run only: the
    first of the frame unless `arm` and `seed` name one. A row of a panel is a channel, sorted by its final value; colours
    mean the same in all panels. Columns arm, seed, step, scale, layer, channel, value.
    """
    rows = _one_run(drawable(history, [] if arm is None else [arm], "step", "layer", "channel", "value"), seed)
    scales = in_order(rows, "scale", list(SUBLAYERS))
    if not scales or rows["step"].nunique() < 2:
        return None
    rows = rows[rows["scale"].isin(scales)]
    layers = sorted(rows["layer"].astype(int).unique())
    figure, places = _layout(len(scales), len(layers))
    colours = _colour_range(rows["value"])
    mesh = None
    for number, scale in enumerate(scales):
        for place, layer in enumerate(layers):
            axes = places[number][place]
            mesh = _draw_layer(axes, rows[(rows["scale"] == scale) & (rows["layer"] == layer)], colours) or mesh
            axes.set_title(f"layer {layer}", fontsize=9, loc="left", pad=3)
            _bare_inside(axes, SUBLAYERS[scale], place, len(layers))
    if mesh is not None:
        figure.colorbar(mesh, cax=figure.add_axes((0.912, 0.25, 0.014, 0.5)), label="alpha")
    return figure


def _one_run(rows: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    if rows.empty:
        return rows
    rows = rows[rows["arm"] == rows["arm"].iloc[0]]
    chosen = rows["seed"].iloc[0] if seed is None else seed
    return rows[rows["seed"] == chosen]


def _layout(sublayers: int, layers: int) -> tuple[Figure, list[list[Axes]]]:
    """A block of panels a sublayer, several rows deep for many layers.

    Placed by hand: a layout engine takes ten seconds over 48 panels.
    """
    columns = _columns(layers)
    deep = -(-layers // columns)
    rows = deep * sublayers
    height = (_PANEL if columns > 2 else 2.6) * rows + _TOP + _BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    figure.subplots_adjust(0.085, _BOTTOM / height, 0.895, 1 - _TOP / height, 0.16, 0.34)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.text(0.5, 0.08 / height, "optimizer step", ha="center", va="bottom")
    figure.text(0.008, 0.5, "channels, sorted by final alpha (share)", rotation=90, va="center")
    blocks = [[axes for row in grid[deep * block : deep * (block + 1)] for axes in row] for block in range(sublayers)]
    for block in blocks:
        for axes in block[layers:]:
            axes.remove()
    return figure, [block[:layers] for block in blocks]


def _columns(layers: int) -> int:
    return min(layers, _FEW if layers <= 2 * _FEW else _MANY)


def _colour_range(values: pd.Series[float]) -> dict[str, Any]:
    """One scale of colours for all panels: from zero up, or on both sides of it where a value is negative."""
    most = float(values.abs().quantile(0.998)) or 1.0
    if values.min() < 0:
        return {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": most}


def _draw_layer(axes: Axes, rows: pd.DataFrame, colours: dict[str, Any]) -> QuadMesh | None:
    if rows.empty:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color="0.4")
        return None
    table = rows.pivot_table(index="channel", columns="step", values="value")
    table = table.sort_values(table.columns[-1])
    steps = table.columns.to_numpy(float)
    axes.set_xticks([steps[0], steps[-1]], [f"{step:g}" for step in (steps[0], steps[-1])])
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    edges = np.linspace(0, 1, len(table) + 1)
    return axes.pcolormesh(_edges(steps), edges, table.to_numpy(), rasterized=True, **colours)


def _edges(centres: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The borders half way between steps."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0]], middle, [centres[-1]]])


def _bare_inside(axes: Axes, sublayer: str, place: int, layers: int) -> None:
    """The sublayer's name and numbers at the left, steps under the lowest panel of a column."""
    axes.tick_params(labelsize=8)
    axes.set_yticks([0, 0.5, 1])
    if place % _columns(layers):
        axes.tick_params(labelleft=False)
    else:
        axes.set_ylabel(sublayer, fontsize=9)
    if place + _columns(layers) < layers:
        axes.tick_params(labelbottom=False)
