"""The measures that a report may compare by."""

from __future__ import annotations

from ngpt_lab.analysis.frames import MEASURES

CLAIM_MEASURE = "test/bits_per_byte"
ALL_MEASURES = MEASURES | {
    "val/accuracy": ("validation", "share of tokens predicted first"),
    "test/accuracy": ("test", "share of tokens predicted first"),
    "train/loss": ("training", "nats per token"),
}
"""Measure -> split and unit."""


def lower_is_better(measure: str) -> bool:
    """Whether a smaller number is the better one."""
    return not measure.endswith("accuracy")
