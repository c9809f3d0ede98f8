"""One function a figure; each returns a matplotlib `Figure`, or None when the runs hold nothing to draw."""

from ngpt_lab.analysis.figures.comparison import (
    final_loss,
    loss_curves,
    paired_differences,
    step_cost,
    tokens_to_equal_loss,
)
from ngpt_lab.analysis.figures.inside import (
    clipped_share,
    eigen_rates_by_layer,
    eigen_rates_over_time,
    norm_error,
    scales_over_time,
)
from ngpt_lab.analysis.figures.style import png

__all__ = [
    "clipped_share",
    "eigen_rates_by_layer",
    "eigen_rates_over_time",
    "final_loss",
    "loss_curves",
    "norm_error",
    "paired_differences",
    "png",
    "scales_over_time",
    "step_cost",
    "tokens_to_equal_loss",
]
