"""Figures as bytes, the same for the same figure."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.style import DPI

# Verdana is about as wide as DejaVu Sans, in which the figure was laid out.
_SVG: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ngpt-lab",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
}
# Exponents are set in one font with no other to fall back on.
_LONE_FONT = re.compile(rb"(font-family: 'DejaVu Sans')(?=[;\"])")


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    _keep_layout(figure)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, with its text as text."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_SVG):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    _keep_layout(figure)
    return _LONE_FONT.sub(rb"\1, 'Verdana', sans-serif", buffer.getvalue())


def _keep_layout(figure: Figure) -> None:
    """Finding the places takes most of the time, and they are the same in both formats."""
    if figure.get_layout_engine() is not None:
        figure.set_layout_engine("none")
