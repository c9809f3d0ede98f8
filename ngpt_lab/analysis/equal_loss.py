"""How much more the baseline spends than the candidate until both reach the same loss: tokens, FLOPs or seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, isfinite, log, nan

import numpy as np
from scipy.interpolate import PchipInterpolator

from ngpt_lab.analysis.statistics import SEEDS_FOR_A_CLAIM, Ratio, paired_interval

Curve = Mapping[int, float]
"""Finished runs of one arm and one seed: tokens -> final validation loss."""


@dataclass(frozen=True)
class SeedRatio:
    """One seed's reading: the loss that both arms attain, and the tokens each needs for it."""

    loss: float
    baseline_tokens: float
    candidate_tokens: float

    @property
    def ratio(self) -> float:
        """Tokens of the baseline over tokens of the candidate: above 1 the candidate is faster."""
        return self.baseline_tokens / self.candidate_tokens


@dataclass(frozen=True)
class EqualLoss:
    """What equal loss costs, baseline / candidate, with a 95% interval; when `reason` is set nothing is claimed.

    `per_seed` keeps the tokens of every seed, whatever the ratio counts.
    """

    ratio: float
    low: float
    high: float
    n: int
    per_seed: Mapping[int, SeedRatio]
    reason: str | None = None

    def at_cost(self, baseline: float, candidate: float) -> EqualLoss:
        """The same in what a token costs each arm (FLOPs, seconds).

        Exact, bounds and all: a constant cost shifts the log of the tokens, and a shift passes through the interpolation.
        """
        cost = baseline / candidate
        return replace(self, ratio=self.ratio * cost, low=self.low * cost, high=self.high * cost)


class _UnreadableError(Exception):
    """Why the finished points do not answer the question."""


def tokens_to_equal_loss(baseline: Mapping[int, Curve], candidate: Mapping[int, Curve]) -> EqualLoss:
    """How many times the candidate's tokens the baseline needs to reach the same loss; arguments map seed to curve.

    The loss asked for is the worse of the two arms' losses at their largest budgets, seed by seed: both attain it, it is
    the furthest that the finished runs reach, and it treats the arms alike, so equal arms give a ratio of 1 on average.
    Each arm's tokens there are read off a monotone cubic of log tokens against loss, between that arm's own finished
    runs and nowhere else; for E + A tokens^-0.33 that errs by less than 0.4% of the ratio where budgets double and by up
    to 2.5% where they quadruple. The interval is the paired t interval of the log ratio. The arms may end at different
    budgets, because no reading leaves the finished points; the seeds of one arm may not, because they would be read at
    different scales.
    """
    if set(baseline) != set(candidate):
        return _not_claimed("the arms do not have the same seeds", {})
    for curves in (baseline, candidate):
        if len({max(curve, default=0) for curve in curves.values()}) > 1:
            return _not_claimed("not every seed of an arm finished the same largest budget", {})
    per_seed: dict[int, SeedRatio] = {}
    try:
        for seed in sorted(baseline):
            per_seed[seed] = _seed_ratio(seed, baseline[seed], candidate[seed])
    except _UnreadableError as problem:
        return _not_claimed(str(problem), per_seed)
    if len(per_seed) < SEEDS_FOR_A_CLAIM:
        return _not_claimed(f"{len(per_seed)} paired seed(s), fewer than {SEEDS_FOR_A_CLAIM}", per_seed)
    log_ratio = paired_interval([log(reading.ratio) for reading in per_seed.values()])
    return EqualLoss(exp(log_ratio.mean), exp(log_ratio.low), exp(log_ratio.high), log_ratio.n, per_seed)


def _not_claimed(reason: str, per_seed: Mapping[int, SeedRatio]) -> EqualLoss:
    return EqualLoss(nan, nan, nan, len(per_seed), per_seed, reason)


def _seed_ratio(seed: int, baseline: Curve, candidate: Curve) -> SeedRatio:
    for name, curve in (("baseline", baseline), ("candidate", candidate)):
        _check_curve(f"seed {seed}: the {name}", curve)
    loss = max(baseline[max(baseline)], candidate[max(candidate)])
    return SeedRatio(
        loss,
        _tokens_at(loss, baseline, f"seed {seed}: the baseline"),
        _tokens_at(loss, candidate, f"seed {seed}: the candidate"),
    )


def _check_curve(owner: str, curve: Curve) -> None:
    if not curve:
        raise _UnreadableError(f"{owner} has no finished run")
    losses = [curve[tokens] for tokens in sorted(curve)]
    if not all(isfinite(loss) for loss in losses):
        raise _UnreadableError(f"{owner} has a loss that is not a number")
    if any(later >= earlier for earlier, later in pairwise(losses)):
        raise _UnreadableError(f"{owner}'s finished losses do not fall with every larger budget")


def _tokens_at(loss: float, curve: Curve, owner: str) -> float:
    tokens = sorted(curve)
    losses = [curve[count] for count in tokens]
    if not losses[-1] <= loss <= losses[0]:
        side = "below its smallest budget" if loss > losses[0] else "above its largest budget"
        raise _UnreadableError(f"{owner} reaches the common loss {loss:.4f} {side}, outside its finished points")
    if loss == losses[-1]:
        return float(tokens[-1])
    return exp(float(PchipInterpolator(losses[::-1], np.log(tokens[::-1]))(loss)))


def time_to_equal_loss(tokens: EqualLoss, step_cost: Ratio) -> Ratio:
    """Time to equal loss, baseline / candidate: the token ratio over the step cost, at equal tokens a step.

    The bounds take each end of both at its worst, so they are wider than 95%. NaN when `tokens` claims nothing.
    """
    return Ratio(tokens.ratio / step_cost.value, tokens.low / step_cost.high, tokens.high / step_cost.low)
