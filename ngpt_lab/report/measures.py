"""The measures that a report may compare by."""

from __future__ import annotations

from ngpt_lab.analysis.columns import METRICS
from ngpt_lab.analysis.frames import MEASURES

ALL_MEASURES = MEASURES | METRICS
"""Measure -> split and unit."""


def lower_is_better(measure: str) -> bool:
    """Whether a smaller number is the better one."""
    return not measure.endswith("accuracy")
