"""How far the weights turn: per step, in all, by kind of matrix and layer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ngpt_lab.analysis.figures.legends import legend_below
from ngpt_lab.analysis.figures.series import arm_order, by_arm, draw_series, drawable
from ngpt_lab.analysis.figures.style import ArmStyle, arm_styles, filled_panels, from_zero, panel_title

KINDS = (
    "input_embedding",
    "output_embedding",
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_up",
    "mlp_gate",
    "mlp_down",
)


def weight_rotation(turned: pd.DataFrame, arms: Sequence[str] = ()) -> Figure | None:
    """Degrees that weight vectors turn per step and in all, by kind of matrix, and in all by layer; a row of panels an arm.

    Read off it: the angular learning rate in effect (which the schedule should bring to zero), and whether some kind of
    matrix or some layer hardly learns. Means over layers and seeds. The total adds up the turns between logged rows: it is
    a path, not the angle to the start. Columns arm, seed, matrix, kind, layer, step, tokens, angle, total (degrees).
    """
    rows = _per_step(drawable(turned, arms, "step", "tokens", "layer", "angle", "total"))
    if rows.empty:
        return None
    present = list(by_arm(rows, arm_order(rows, arms)))
    # Matrices that hold two kinds, and kinds that another architecture adds, come after the known ones.
    styles = arm_styles([kind for kind in dict.fromkeys([*KINDS, *rows["kind"]]) if kind in set(rows["kind"])])
    layered = bool((rows["layer"] >= 0).any())
    columns = 3 if layered else 2
    figure, places = filled_panels(columns * len(present), columns)
    for number, (arm, style, own) in enumerate(present):
        row = places[number * columns : (number + 1) * columns]
        _draw_over_time(row[0], own, "per_step", "turn per step (degrees)", styles)
        _draw_over_time(row[1], own, "total", "turned so far (degrees)", styles)
        if layered:
            _draw_by_layer(row[2], own, styles)
        panel_title(row[0], arm, style.colour)
    legend_below(figure)
    return figure


def _per_step(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the angle per step: the turn since the row before, over the steps since then."""
    if rows.empty:
        return rows
    rows = rows.sort_values("step", kind="stable")
    since = rows.groupby(["arm", "seed", "matrix"])["step"].diff().fillna(rows["step"])
    return rows.assign(per_step=rows["angle"] / since.clip(lower=1))


def _draw_over_time(axes: Axes, rows: pd.DataFrame, column: str, label: str, styles: dict[str, ArmStyle]) -> None:
    for kind, style in styles.items():
        own = rows[rows["kind"] == kind]
        if not own.empty:
            draw_series(axes, own.assign(seed=0), "tokens", column, style, kind.replace("_", " "))
    from_zero(axes)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens trained")
    axes.set_ylabel(label)


def _draw_by_layer(axes: Axes, rows: pd.DataFrame, styles: dict[str, ArmStyle]) -> None:
    last = rows.groupby(["seed", "matrix", "kind", "layer"], as_index=False)["total"].last()
    for kind, style in styles.items():
        own = last[(last["kind"] == kind) & (last["layer"] >= 0)]
        if not own.empty:
            draw_series(axes, own.assign(seed=0), "layer", "total", style, kind.replace("_", " "))
    from_zero(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer (0 is the first)")
    axes.set_ylabel("turned in all (degrees)")
