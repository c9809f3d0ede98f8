"""The learned scales at the end of training: over layers, and how their channels are spread."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.geometry import label_depth
from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, draw_density, draw_series, drawable, in_order, with_depth
from ngpt_lab.analysis.figures.style import filled_panels, from_zero

BY_LAYER = {
    "attention_alpha": "mean |alpha_A|",
    "mlp_alpha": "mean |alpha_M|",
    "s_u": "mean |s_u|",
    "s_v": "mean |s_v|",
    "s_qk": "mean |s_qk|",
}
SPREAD = {
    "attention_alpha": "alpha_A",
    "mlp_alpha": "alpha_M",
    "s_qk": "s_qk",
    "s_u": "s_u",
    "s_v": "s_v",
    "s_z": "s_z",
}
_CHANNELS = "density of channels"


def scales_by_layer(history: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Mean size of every scale per layer when training ended, and the density of s_z (arXiv 2410.01131, Fig. 6).

    Read off it: how far each block moves the stream (alpha), whether the scales of the MLP and of the attention change
    with depth, and how sharp the logits are (s_z). Columns arm, seed, step, scale, layer, channel, value.
    """
    rows = last_values(history, arms)
    names = in_order(rows, "scale", [*BY_LAYER, "s_z"])
    if not names:
        return None
    figure, places = filled_panels(len(names))
    order = arm_order(rows, arms)
    layered = [axes for axes, name in zip(places, names, strict=True) if name != "s_z"]
    for axes, name in zip(places, names, strict=True):
        own = rows[rows["scale"] == name]
        if name == "s_z":
            _draw_spread(axes, own, order, "arm", "s_z")
        else:
            _draw_layers(axes, own, order, BY_LAYER[name])
    label_depth(layered)
    legend_below(figure)
    return figure


def scale_histograms(history: pd.DataFrame, arms: Sequence[str] = (), by: str = "arm") -> Figure | None:
    """How the channels of every scale are spread when training ended (arXiv 2410.01131, Fig. 14).

    Read off it: whether context, size, learning rate or budget move a scale (`by` names the column that parts the series:
    arm, condition, budget), how many channels stay near zero, and which turn negative. All layers and seeds together.
    Columns arm, seed, step, scale, layer, channel, value and `by`.
    """
    rows = last_values(history, arms)
    names = in_order(rows, "scale", list(SPREAD))
    if not names:
        return None
    figure, places = filled_panels(len(names))
    order = arm_order(rows, arms) if by == "arm" else [str(value) for value in dict.fromkeys(rows[by])]
    for axes, name in zip(places, names, strict=True):
        _draw_spread(axes, rows[rows["scale"] == name], order, by, SPREAD[name])
    legend_below(figure)
    return figure


def last_values(history: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The rows of the last step of every run."""
    rows = drawable(history, arms, "step", "layer", "value")
    if rows.empty:
        return rows
    run = [name for name in ("arm", "seed", "condition", "budget", "label") if name in rows]
    return rows[rows["step"] == rows.groupby(run, dropna=False)["step"].transform("max")]


def _draw_layers(axes: Axes, rows: pd.DataFrame, order: Sequence[str], label: str) -> None:
    sizes = with_depth(rows.assign(value=rows["value"].abs()))
    for arm, style, own in by_arm(sizes, order):
        draw_series(axes, own, "depth", "value", style, arm)
    from_zero(axes)
    axes.set_ylabel(label)


def _draw_spread(axes: Axes, rows: pd.DataFrame, order: Sequence[str], by: str, label: str) -> None:
    series = rows if by == "arm" else rows.assign(arm=rows[by].astype(str))
    for name, style, own in by_arm(series, order):
        draw_density(axes, own["value"], style, name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"value of {label}" if label.startswith("s_") else label)
    axes.set_ylabel(_CHANNELS)
