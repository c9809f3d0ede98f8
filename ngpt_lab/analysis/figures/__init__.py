"""One function a figure; each returns a matplotlib `Figure`, or None when there is nothing to draw."""

from ngpt_lab.analysis.figures.alpha import alpha_over_training
from ngpt_lab.analysis.figures.comparison import (
    final_loss,
    loss_curves,
    paired_differences,
    step_cost,
    tokens_to_equal_loss,
)
from ngpt_lab.analysis.figures.effects import ablation_effects, speed_ups
from ngpt_lab.analysis.figures.geometry import condition_numbers, embedding_geometry, query_key_spectra
from ngpt_lab.analysis.figures.image import png, svg
from ngpt_lab.analysis.figures.inside import (
    clipped_share,
    eigen_rates_by_layer,
    eigen_rates_over_time,
    norm_error,
    scales_over_time,
)
from ngpt_lab.analysis.figures.lengths import loss_change_by_length, perplexity_by_length
from ngpt_lab.analysis.figures.losses import loss_by_budget, loss_by_effort, validation_during_training
from ngpt_lab.analysis.figures.rotation import weight_rotation
from ngpt_lab.analysis.figures.scales import scale_histograms, scales_by_layer
from ngpt_lab.analysis.figures.stream import attention_entropy, lerp_slerp_gap, stream_path
from ngpt_lab.analysis.figures.tuning import learning_rate_curves, tuning_curves

__all__ = [
    "ablation_effects",
    "alpha_over_training",
    "attention_entropy",
    "clipped_share",
    "condition_numbers",
    "eigen_rates_by_layer",
    "eigen_rates_over_time",
    "embedding_geometry",
    "final_loss",
    "learning_rate_curves",
    "lerp_slerp_gap",
    "loss_by_budget",
    "loss_by_effort",
    "loss_change_by_length",
    "loss_curves",
    "norm_error",
    "paired_differences",
    "perplexity_by_length",
    "png",
    "query_key_spectra",
    "scale_histograms",
    "scales_by_layer",
    "scales_over_time",
    "speed_ups",
    "step_cost",
    "stream_path",
    "svg",
    "tokens_to_equal_loss",
    "tuning_curves",
    "validation_during_training",
    "weight_rotation",
]
