"""What happens to the residual stream and the attention: steps, gaps, entropy, length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, by_layer, draw_series, drawable, in_order
from ngpt_lab.analysis.figures.style import REFERENCE_LINE, few_log_ticks, filled_panels, from_zero, panel_title, single

SUBLAYERS = {"attention": "attention", "mlp": "MLP"}
_STEEP = 5
"""Perplexities that span this factor stand on a log axis."""


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


def perplexity_by_length(perplexities: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Perplexity against the length of the text read, a panel a training length (arXiv 2410.01131, Fig. 13).

    Read off it: whether a model still reads texts longer than those it was trained on (right of the dashed line). Columns
    arm, seed, length, perplexity; `trained_length` where known.
    """
    rows = drawable(perplexities, arms, "length", "perplexity")
    if rows.empty:
        return None
    known = "trained_length" in rows and rows["trained_length"].notna().any()
    panels: list[tuple[Any, pd.DataFrame]] = list(rows.groupby("trained_length")) if known else [(None, rows)]
    figure, places = filled_panels(len(panels))
    for axes, (trained, here) in zip(places, panels, strict=True):
        for arm, style, own in by_arm(here, arm_order(rows, arms)):
            draw_series(axes, own, "length", "perplexity", style, arm)
        if trained is not None:
            axes.axvline(float(trained), **REFERENCE_LINE, label="trained length")
            panel_title(axes, f"trained on {int(trained)} tokens")
        _lengths_axis(axes, here)
    for axes in places[::3]:
        axes.set_ylabel("perplexity")
    legend_below(figure)
    return figure


def _lengths_axis(axes: Axes, rows: pd.DataFrame) -> None:
    lengths = sorted(rows["length"].unique())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(lengths[:: -(-len(lengths) // 7)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelrotation=35 if len(lengths) > 4 else 0)
    axes.set_xlabel("length of the text (tokens)")
    if rows["perplexity"].max() > _STEEP * rows["perplexity"].min() > 0:
        axes.set_yscale("log")
        few_log_ticks(axes.yaxis)
