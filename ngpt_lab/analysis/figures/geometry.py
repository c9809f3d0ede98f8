"""What the matrices look like: norms, spectra and condition numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.legends import legend, legend_below
from ngpt_lab.analysis.figures.series import (
    arm_order,
    by_arm,
    draw_density,
    draw_series,
    drawable,
    in_order,
    with_depth,
)
from ngpt_lab.analysis.figures.style import ArmStyle, few_log_ticks, filled_panels, from_zero, panel_title, whole_decades

EMBEDDINGS = ("input_embedding", "output_embedding")
CONDITION_KINDS = ("query", "key", "value", "mlp_up", "mlp_gate", "mlp_down")
RANK = "normalised rank"
_FAINT = 0.35
_SAME = 1e-3


def embedding_geometry(
    norms: pd.DataFrame, eigenvalues: pd.DataFrame, dots: pd.DataFrame, arms: Sequence[str] = ()
) -> Figure | None:
    """Norms, covariance eigenvalues and pairwise dot products of both embeddings (arXiv 2410.01131, Fig. 4).

    Read off it: whether the norms of embedding vectors differ, how many directions they fill (a flat spectrum: all), and
    how alike two vectors are. Columns arm, seed, kind and: `norms` layer, rank, norm; `eigenvalues` rank, value (over the
    median); `dots` value. Any of the frames may be empty.
    """
    parts = [
        (drawable(norms, arms, "rank", "norm"), _draw_norms),
        (drawable(eigenvalues, arms, "rank", "value"), _draw_eigenvalues),
        (drawable(dots, arms, "value"), _draw_dots),
    ]
    order = _order([rows for rows, _ in parts], arms)
    flat = [
        (kind, rows[rows["kind"] == kind], draw)
        for kind in EMBEDDINGS
        for rows, draw in parts
        if in_order(rows, "kind", [kind])
    ]
    if not flat:
        return None
    figure, places = filled_panels(len(flat), sum(len(rows) > 0 for rows, _ in parts))
    for axes, (kind, rows, draw) in zip(places, flat, strict=True):
        draw(axes, rows, order)
        panel_title(axes, kind.replace("_", " ") + "s")
    legend_below(figure)
    return figure


def _order(frames: Sequence[pd.DataFrame], arms: Sequence[str]) -> list[str]:
    return list(arms) or list(dict.fromkeys(arm for rows in frames if len(rows) for arm in rows["arm"]))


def _draw_norms(axes: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    for arm, style, own in by_arm(rows, arms):
        draw_series(axes, own, "rank", "norm", style, arm)
    from_zero(axes)
    axes.set_xlabel(RANK)
    axes.set_ylabel("norm of a vector")


def _draw_eigenvalues(axes: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    for arm, style, own in by_arm(rows[rows["value"] > 0], arms):
        draw_series(axes, own, "rank", "value", style, arm)
    axes.set_yscale("log")
    few_log_ticks(axes.yaxis)
    axes.set_xlabel(RANK)
    axes.set_ylabel("eigenvalue of covariance / median")


def _draw_dots(axes: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    for arm, style, own in by_arm(rows, arms):
        draw_density(axes, own["value"], style, arm)
    # Vectors of any length spread over a range in which unit vectors are a spike: the log axis shows both.
    axes.set_yscale("log")
    axes.set_xlabel("dot product of two vectors")
    axes.set_ylabel("density")


def condition_numbers(
    conditions: pd.DataFrame, arms: Sequence[str] = (), renormalised: pd.DataFrame | None = None
) -> Figure | None:
    """Median condition number over heads per layer (arXiv 2410.01131, Fig. 5; with `renormalised`, Fig. 10).

    Read off it: how much of its width each matrix uses (1: all directions alike), and how much of the difference is only
    the length of the vectors (dotted: brought to unit length after training, where that changes them). Columns arm, seed,
    kind, layer, head, condition in both frames.
    """
    rows = _median_over_heads(conditions, arms)
    kinds = in_order(rows, "kind", CONDITION_KINDS)
    if not kinds:
        return None
    dotted = _moved(rows, _median_over_heads(pd.DataFrame() if renormalised is None else renormalised, arms))
    figure, places = filled_panels(len(kinds))
    order = arm_order(rows, arms)
    for axes, kind in zip(places, kinds, strict=True):
        for arm, style, own in by_arm(rows[rows["kind"] == kind], order):
            draw_series(axes, own, "depth", "condition", style, arm)
        after = dotted[dotted["kind"] == kind] if len(dotted) else dotted
        if len(after):
            for arm, style, own in by_arm(after, order):
                draw_series(
                    axes, own, "depth", "condition", style, f"{arm}, renormalised", linestyle=":", markerfacecolor="white"
                )
        drawn = [values[values["kind"] == kind]["condition"] for values in (rows, dotted) if len(values)]
        whole_decades(axes, pd.concat(drawn))
        few_log_ticks(axes.yaxis)
        panel_title(axes, kind.replace("_", " "))
    label_depth(places)
    for axes in places[::3]:
        axes.set_ylabel("condition number\n(median over heads)")
    legend_below(figure)
    return figure


def _moved(rows: pd.DataFrame, renormalised: pd.DataFrame) -> pd.DataFrame:
    """Without the arms whose vectors had unit length already: their lines would hide those they lie on."""
    if renormalised.empty:
        return renormalised
    both = renormalised.merge(rows, on=["arm", "seed", "kind", "depth"], how="left", suffixes=("", "_before"))
    changed = ~np.isclose(both["condition"], both["condition_before"], rtol=_SAME)
    return renormalised[renormalised["arm"].isin(both.loc[changed, "arm"])]


def label_depth(places: Sequence[Axes]) -> None:
    """The x axis of panels over layers of models of any depth."""
    for axes in places:
        axes.set_xlim(-0.05, 1.05)
        axes.set_xlabel("layer (0 first, 1 last)")


def _median_over_heads(conditions: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    rows = drawable(conditions, arms, "layer", "condition")
    if rows.empty:
        return rows
    rows = with_depth(rows)
    return rows.groupby(["arm", "seed", "kind", "depth"], sort=False)[["condition"]].median().reset_index()


def query_key_spectra(norms: pd.DataFrame, singular: pd.DataFrame, layer: int, arms: Sequence[str] = ()) -> Figure | None:
    """Norms of the query and key vectors of one layer, and the singular values of all heads (arXiv 2410.01131, Fig. 11, 12).

    Read off it: a spectrum that falls off means that heads use few of their directions; the legend says by how much
    (condition number, median over heads). Columns arm, seed, kind, layer and: `norms` rank, norm; `singular` head, rank,
    value.
    """
    lengths = _of_layer(drawable(norms, arms, "layer", "rank", "norm"), layer)
    values = _of_layer(drawable(singular, arms, "layer", "head", "rank", "value"), layer)
    order = _order([lengths, values], arms)
    flat = [
        (kind, rows[rows["kind"] == kind], draw)
        for kind in ("query", "key")
        for rows, draw in ((lengths, _draw_norms), (values, _draw_heads))
        if in_order(rows, "kind", [kind])
    ]
    if not flat:
        return None
    figure, places = filled_panels(len(flat), 2)
    for axes, (kind, rows, draw) in zip(places, flat, strict=True):
        draw(axes, rows, order)
        panel_title(axes, f"{kind}, layer {layer}")
        legend(axes)
    return figure


def _of_layer(rows: pd.DataFrame, layer: int) -> pd.DataFrame:
    return rows[rows["layer"] == layer] if len(rows) else rows


def _draw_heads(axes: Axes, rows: pd.DataFrame, arms: Sequence[str]) -> None:
    for arm, style, own in by_arm(rows[rows["value"] > 0], arms):
        heads = [head.sort_values("rank") for _, head in own.groupby(["seed", "head"])]
        condition = pd.Series([head["value"].max() / head["value"].min() for head in heads]).median()
        for place, head in enumerate(heads):
            _draw_head(axes, head, style, None if place else f"{arm}: condition {condition:.3g}")
    axes.set_yscale("log")
    few_log_ticks(axes.yaxis)
    axes.set_xlabel(RANK)
    axes.set_ylabel("singular value, a line a head")


def _draw_head(axes: Axes, head: pd.DataFrame, style: ArmStyle, label: str | None) -> None:
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.line, "linewidth": 1.0}
    axes.plot(head["rank"], head["value"], **look, alpha=_FAINT)
    if label:
        # The legend's line is not faint, and it stands for all heads.
        axes.plot([], [], **look | {"linewidth": 1.8}, label=label)
