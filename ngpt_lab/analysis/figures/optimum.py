"""The best of several trials, marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

_INSIDE: dict[str, Any] = {"marker": "*", "markersize": 15, "linestyle": "none", "markeredgecolor": "black", "zorder": 4}
_EDGE = _INSIDE | {"markerfacecolor": "white", "markeredgewidth": 1.3}
_STEP, _PLACES = 0.07, 6
_DIVERGED: dict[str, Any] = {"marker": "x", "markersize": 7, "linestyle": "none", "markeredgewidth": 1.6, "clip_on": False}


def mark_optimum(axes: Axes, x: float, y: float, colour: Any, edge: bool) -> None:
    """A star: full for an optimum inside what was tried, white for one at the edge, which may not be the optimum."""
    axes.plot([x], [y], color=colour, **_EDGE if edge else _INSIDE)


def mark_diverged(axes: Axes, x: pd.Series[float], colour: Any, place: int) -> None:
    """A cross at the top of the panel for each trial without a finite loss; a place lower for each next series."""
    axes.plot(
        x, np.full(len(x), 1 - _STEP * (place % _PLACES)), color=colour, transform=axes.get_xaxis_transform(), **_DIVERGED
    )


def key_of_marks(inside: bool, edge: bool, diverged: bool) -> dict[str, Line2D]:
    """Label -> handle of the marks that a figure holds."""
    kinds = {
        "best": (inside, _INSIDE),
        "best, but at the edge of what was tried": (edge, _EDGE),
        "diverged": (diverged, _DIVERGED),
    }
    return {label: Line2D([], [], color="0.4", **look) for label, (present, look) in kinds.items() if present}
