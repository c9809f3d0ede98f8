"""What each figure of a report is to be read for."""

from __future__ import annotations

_ROWS = "runs/*/metrics.jsonl"
_FINAL = "runs/*/run.json, final"
_WEIGHTS = "runs/*/checkpoints/last.ckpt"
CAPTIONS = {
    "effects": (
        "Effect of every arm",
        "Left of the dashed line an arm ends with the lower loss; full marks stay significant after Holm's correction for "
        "all arms, bars are each arm's own 95% t interval, and a grey bar is the smallest effect that would have been found.",
        _FINAL,
    ),
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
    "speed-ups": (
        "Tokens, FLOPs and seconds to equal loss",
        "Whether fewer tokens survive the price of a step: right of the dashed line the arm is cheaper; the bars of the "
        "seconds take the cost of a step at its worst.",
        f"{_FINAL}; step_cost.json",
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
    "embeddings": (
        "Geometry of the embeddings",
        "Whether the lengths of embedding vectors differ, how many directions they fill (a flat spectrum: all), and how "
        "alike two of them are.",
        _WEIGHTS,
    ),
    "condition-numbers": (
        "Condition numbers per layer",
        "How much of its width each matrix uses, 1 for all of it; dotted: with the vectors brought to unit length first, "
        "which leaves what is not a matter of length.",
        _WEIGHTS,
    ),
    "stream-path": (
        "Path of the residual stream",
        "Where in depth the work is done: how many degrees each sublayer turns the state, and whether the last still do.",
        f"{_WEIGHTS}, on windows of the validation split",
    ),
    "learning-rates": (
        "Loss against the learning rate",
        "Every arm's search: a full star is an optimum inside what was tried, a white one lies at the edge, where a better "
        "rate may lie outside; a cross diverged.",
        "tuning.csv",
    ),
    "tuning": (
        "Loss against every setting that was tuned",
        "How flat the loss is around each choice, and whether it lies at the edge of what was tried (white star).",
        "tuning.csv",
    ),
}
"""Name -> title, what to read, source."""
