"""Which figures a report shows, in which order, and what each is to be read for."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from ngpt_lab.analysis import figures
from ngpt_lab.analysis.frames import final_losses
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.summary import equal_loss_readings

_ROWS = "runs/*/metrics.jsonl"
_FINAL = "runs/*/run.json, final"
CAPTIONS = {
    "final-loss": (
        "Final validation loss against budget",
        "The lower line wins at that budget; every dot is one finished run, dashes and lines are means over seeds.",
        _FINAL,
    ),
    "paired-difference": (
        "Difference between arms, paired by seed",
        "An interval that touches the dashed zero line means that the runs cannot tell the arms apart; bars are 95% "
        "t intervals, filled marks are the test split.",
        _FINAL,
    ),
    "tokens-to-equal-loss": (
        "Tokens to equal loss",
        "Right of the dashed line the arm needs fewer tokens than the baseline; light marks are seeds, the bar is the "
        "95% t interval.",
        _FINAL,
    ),
    "loss-curves": (
        "Loss while training",
        "How learning went at the largest budget, not a comparison: no speed-up may be read off unfinished curves; "
        "light lines are seeds.",
        _ROWS,
    ),
    "step-cost": (
        "Cost of a step",
        "How much more a step costs than the baseline's, measured in alternation; lines are medians over rounds.",
        "step_cost.json",
    ),
    "eigen-rates-by-layer": (
        "Eigen learning rates per layer at the end of training",
        "How far each block moves the residual stream towards its output, 0 not at all and 1 all the way; light marks "
        "are seeds.",
        _ROWS,
    ),
    "eigen-rates-over-time": (
        "Eigen learning rates while training",
        "Whether the step sizes have settled or were still moving when training ended; means over seeds.",
        _ROWS,
    ),
    "scales": (
        "Other scales while training",
        "Whether a scale was still growing at the end: s_z that still climbs had too few steps to sharpen the output.",
        _ROWS,
    ),
    "norm-error": (
        "Departure from unit norm",
        "The largest error over all matrices stays at rounding level where weights are projected after every step.",
        _ROWS,
    ),
    "clipped-share": (
        "Share of clipped steps",
        "Arms that are clipped on very different shares of their steps do not train under the same rule in effect.",
        _ROWS,
    ),
}
"""Name -> title, what to read, source."""


@dataclass(frozen=True, eq=False)
class Plate:
    """One figure of a report with its words."""

    name: str
    title: str
    caption: str
    source: str
    figure: Figure


def draw_plates(comparison: Comparison) -> list[Plate]:
    """The figures that these runs can fill."""
    runs, arms = comparison.runs, comparison.arms
    finals = final_losses(runs)
    unit = (comparison.step_cost or {}).get("unit", "seconds per step")
    drawn = {
        "final-loss": figures.final_loss(finals, arms),
        "paired-difference": figures.paired_differences(finals, arms),
        "tokens-to-equal-loss": figures.tokens_to_equal_loss(equal_loss_readings(comparison, finals), arms),
        "loss-curves": figures.loss_curves(runs, arms),
        "step-cost": figures.step_cost(comparison.step_seconds(), arms, unit),
        "eigen-rates-by-layer": figures.eigen_rates_by_layer(runs, arms),
        "eigen-rates-over-time": figures.eigen_rates_over_time(runs, arms),
        "scales": figures.scales_over_time(runs, arms),
        "norm-error": figures.norm_error(runs, arms),
        "clipped-share": figures.clipped_share(runs, arms),
    }
    return [Plate(name, *CAPTIONS[name], figure) for name, figure in drawn.items() if figure is not None]
