"""Figures of what goes on inside the models: eigen learning rates, scales, norms, clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ngpt_lab.analysis.figures.legends import legend, legend_below, legend_beside
from ngpt_lab.analysis.figures.series import mean_over_seeds, seed_lines
from ngpt_lab.analysis.figures.style import (
    arm_styles,
    filled_panels,
    from_zero,
    layer_colours,
    panel_title,
    panels,
    single,
    tokens_axis,
    whole_decades,
)
from ngpt_lab.analysis.frames import at_the_end, history, layer_history
from ngpt_lab.analysis.runs import Run, at_full_budget

EIGEN_RATES = {
    "eigen/attention_alpha": "attention: mean |alpha|",
    "eigen/mlp_alpha": "MLP: mean |alpha|",
}
SCALES = {
    "scale/s_qk": "mean |s_qk|",
    "scale/s_u": "mean |s_u|",
    "scale/s_v": "mean |s_v|",
    "scale/s_z": "mean |s_z|",
}
_LAYERS_NAMED = 8


def eigen_rates_by_layer(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Mean |alpha| per layer when training ends: a light dot a seed, a line through the means."""
    present = _present(_shown(runs, arms), EIGEN_RATES)
    if not present:
        return None
    figure, [row] = panels(1, len(present))
    for axes, (title, rows) in zip(row, present.items(), strict=True):
        last = at_the_end(rows)
        for arm, style in arm_styles(arms).items():
            own = last[last["arm"] == arm]
            mean = own.groupby("layer")["value"].mean()
            if not own.empty:
                axes.plot(own["layer"], own["value"], style.marker, color=style.colour, alpha=0.4, markersize=5)
                axes.plot(mean.index, mean, color=style.colour, marker=style.marker, linewidth=1.8, label=arm)
        from_zero(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer (0 is the first)")
        axes.set_ylabel(title)
    legend_below(figure)
    return figure


def eigen_rates_over_time(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Mean |alpha| of every layer against tokens, mean over seeds, a row of panels an arm."""
    return _layers_over_time(runs, arms, EIGEN_RATES)


def scales_over_time(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Mean size of every other scale against tokens, mean over seeds, a row of panels an arm."""
    return _layers_over_time(runs, arms, SCALES)


def norm_error(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Largest departure of a weight vector from unit norm, against tokens, on a log axis."""
    rows = history(_shown(runs, arms), "sphere/weight_error")
    rows = rows[rows["value"].astype(float) > 0]
    if rows.empty:
        return None
    figure, axes = single()
    _lines_by_arm(axes, rows, arms)
    whole_decades(axes, rows["value"].astype(float))
    axes.set_ylabel("largest | ||w|| - 1 |, all matrices")
    return figure


def clipped_share(runs: Sequence[Run], arms: Sequence[str]) -> Figure | None:
    """Share of all steps so far whose gradient was clipped, against tokens."""
    rows = history(_shown(runs, arms), "train/clipped_share")
    if rows.empty:
        return None
    figure, axes = single()
    _lines_by_arm(axes, rows, arms)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("share of steps so far\nwhose gradient was clipped")
    return figure


def _shown(runs: Sequence[Run], arms: Sequence[str]) -> list[Run]:
    return [run for run in at_full_budget(runs) if run.arm in arms]


def _lines_by_arm(axes: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    for arm, style in arm_styles(arms).items():
        own = rows[rows["arm"] == arm]
        if not own.empty:
            seed_lines(axes, own, style.colour, arm)
    tokens_axis(axes)
    legend_beside(axes)


def _present(runs: Sequence[Run], names: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    full = at_full_budget(runs)
    return {title: rows for name, title in names.items() if not (rows := layer_history(full, name)).empty}


def _layers_over_time(runs: Sequence[Run], arms: Sequence[str], names: Mapping[str, str]) -> Figure | None:
    drawn = {arm: found for arm in arms if (found := _present([run for run in runs if run.arm == arm], names))}
    if not drawn:
        return None
    # An arm with fewer scales than another would leave panels empty, so every panel is placed by itself.
    flat = [(arm, title, rows) for arm, found in drawn.items() for title, rows in found.items()]
    figure, places = filled_panels(len(flat), len(flat) if len(flat) <= 3 else 2)
    for axes, (arm, title, rows) in zip(places, flat, strict=True):
        _draw_layers(axes, rows)
        axes.set_ylabel(title)
        panel_title(axes, arm, arm_styles(arms)[arm].colour)
    return figure


def _draw_layers(axes: Axes, rows: pd.DataFrame) -> None:
    layers = sorted(rows["layer"].unique())
    for layer, colour in layer_colours(layers).items():
        mean = mean_over_seeds(rows[rows["layer"] == layer])
        named = len(layers) <= _LAYERS_NAMED or layer in (layers[0], layers[-1])
        axes.plot(mean.index, mean, color=colour, linewidth=1.6, label=f"layer {layer}" if named else None)
    from_zero(axes)
    tokens_axis(axes)
    if len(layers) > 1:
        legend(axes)
