"""Legends that hide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from ngpt_lab.analysis.figures.style import folded

_MOST_INSIDE, _MOST_BESIDE = 8, 14
_LONGEST_INSIDE, _LONGEST_BESIDE = 40, 48
_FEW, _FOLD, _FOLD_MANY = 4, 90, 44
# Inches at the size of a legend's letters: a letter, the mark and gap of an entry, a line.
_LETTER, _MARK, _LINE = 0.078, 0.55, 0.2


def legend(axes: Axes) -> None:
    """A plain legend where it hides least; below the figure when it is large."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > _MOST_INSIDE or _longest(labels) > _LONGEST_INSIDE:
        _below_all(axes)
    else:
        _plain(axes.legend(frameon=False, fontsize=9))


def legend_beside(axes: Axes) -> None:
    """A plain legend to the right of the panel, where it hides nothing; below the figure when it is large."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > _MOST_BESIDE or _longest(labels) > _LONGEST_BESIDE:
        _below_all(axes)
    else:
        _plain(axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0)))


def legend_below(figure: Figure, more: Mapping[str, Any] | None = None) -> None:
    """One legend under the panels, each label once, for which the figure grows; `more` is label -> handle."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    found |= more or {}
    if not found or figure.legends:
        return
    labels = [folded(label, _FOLD if len(found) <= _FEW else _FOLD_MANY) for label in found]
    columns = max(1, int(figure.get_figwidth() / (_LETTER * _longest(labels) + _MARK)))
    deep = -(-len(labels) // columns)
    lines = max(sum(1 + label.count("\n") for label in labels[start : start + deep]) for start in range(0, len(labels), deep))
    figure.set_figheight(figure.get_figheight() + _LINE * lines + 0.1)
    _plain(
        figure.legend(
            list(found.values()), labels, frameon=False, fontsize=9, loc="outside lower center", ncols=min(columns, len(labels))
        )
    )


def _below_all(axes: Axes) -> None:
    figure = axes.get_figure()
    if isinstance(figure, Figure):
        legend_below(figure)


def _longest(labels: list[str]) -> int:
    return max((len(line) for label in labels for line in label.splitlines()), default=0)


def _plain(drawn: Legend) -> None:
    for text in drawn.get_texts():
        text.set_parse_math(False)
