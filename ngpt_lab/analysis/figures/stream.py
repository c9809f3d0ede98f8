"""What happens to the residual stream and the attention: steps, gaps, entropy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, by_layer, draw_series, drawable, in_order
from ngpt_lab.analysis.figures.style import REFERENCE_LINE, filled_panels, from_zero, panel_title, single

SUBLAYERS = {"attention": "attention", "mlp": "MLP"}


def stream_path(path: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """How many degrees each sublayer turns the residual stream, per layer.

    Read off it: where in depth the work is done, and whether the last layers still move the state. Columns arm, seed,
    layer, sublayer (attention, mlp), angle (degrees).
    """
    rows = drawable(path, arms, "layer", "angle")
    sublayers = in_order(rows, "sublayer", list(SUBLAYERS))
    if not sublayers:
        return None
    figure, places = filled_panels(len(sublayers))
    rows, label = by_layer(rows)
    for axes, sublayer in zip(places, sublayers, strict=True):
        for arm, style, own in by_arm(rows[rows["sublayer"] == sublayer], arm_order(rows, arms)):
            draw_series(axes, own, "place", "angle", style, arm)
        from_zero(axes)
        _layers_axis(axes, label)
        panel_title(axes, SUBLAYERS[sublayer])
    places[0].set_ylabel("turn of the stream (degrees)")
    legend_below(figure)
    return figure


def _layers_axis(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(7, integer="1 last" not in label))
    axes.set_xlabel(label)


def lerp_slerp_gap(gap: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Degrees that LERP and SLERP move the stream with the same learned alpha, per layer, and the gap against alpha.

    Read off it: whether the straight line of the paper's update (arXiv 2410.01131, eq. 10 and 11) differs from the arc it
    stands for, and in which layers. Columns arm, seed, layer, sublayer, alpha, angle_lerp, angle_slerp (degrees).
    """
    rows = drawable(gap, arms, "layer", "alpha", "angle_lerp", "angle_slerp")
    sublayers = in_order(rows, "sublayer", list(SUBLAYERS))
    if not sublayers:
        return None
    figure, places = filled_panels(len(sublayers) + 1)
    order = arm_order(rows, arms)
    rows, label = by_layer(rows)
    for axes, sublayer in zip(places, sublayers, strict=False):
        for arm, style, own in by_arm(rows[rows["sublayer"] == sublayer], order):
            draw_series(axes, own, "place", "angle_lerp", style, f"{arm}, LERP")
            draw_series(axes, own, "place", "angle_slerp", style, f"{arm}, SLERP", linestyle=":", markerfacecolor="white")
        from_zero(axes)
        _layers_axis(axes, label)
        panel_title(axes, SUBLAYERS[sublayer])
    places[0].set_ylabel("turn of the stream (degrees)")
    _draw_gap(places[-1], rows, order)
    legend_below(figure)
    return figure


def _draw_gap(axes: Axes, rows: pd.DataFrame, order: Sequence[str]) -> None:
    axes.axhline(0, **REFERENCE_LINE)
    for _, style, own in by_arm(rows, order):
        lag = own["angle_slerp"] - own["angle_lerp"]
        axes.plot(own["alpha"], lag, style.marker, color=style.colour, markersize=5, alpha=0.7)
    axes.set_xlabel("alpha (mean over channels)")
    axes.set_ylabel("SLERP - LERP (degrees)")
    panel_title(axes, "gap, both sublayers")


def attention_entropy(entropy: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Mean entropy of a row of attention, a dot a head, a line through the means; dashed: a row that looks everywhere.

    Read off it: how focused the heads of each layer are, and whether a layer's heads differ. Columns arm, seed, layer,
    head, entropy, uniform (nats).
    """
    rows = drawable(entropy, arms, "layer", "entropy")
    if rows.empty:
        return None
    figure, axes = single()
    order = arm_order(rows, arms)
    rows, label = by_layer(rows)
    aside = min(0.15, 0.5 / len(order)) * rows["place"].max() / max(1, rows["layer"].max())
    for number, (arm, style, own) in enumerate(by_arm(rows, order)):
        moved = own.assign(place=own["place"] + aside * (number - (len(order) - 1) / 2))
        axes.plot(moved["place"], moved["entropy"], style.marker, color=style.colour, alpha=0.3, markersize=3.5)
        means = moved.groupby("place")["entropy"].mean()
        look = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "markersize": 6}
        axes.plot(means.index, means, **look, label=arm)
    uniform = pd.to_numeric(rows["uniform"], errors="coerce").dropna().unique()
    for place, height in enumerate(sorted(uniform)):
        axes.axhline(float(height), **REFERENCE_LINE, label=None if place else "uniform attention")
    from_zero(axes)
    _layers_axis(axes, label)
    axes.set_ylabel("entropy of attention (nats)")
    legend_below(figure)
    return figure
