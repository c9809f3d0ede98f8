"""Paired statistics over a handful of seeds.

A t interval, because a percentile bootstrap over three seeds covers 73% where it says 95%.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import exp, isfinite, nan, sqrt

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t

LEVEL = 0.05
POWER = 0.8
SEEDS_FOR_A_CLAIM = 3
ROUND_QUANTILES = (0.05, 0.95)
_QUANTILES = 4000


@dataclass(frozen=True)
class Interval:
    """A mean over `n` pairs with its 95% t interval; with one pair there is none and the half width is NaN.

    `detectable` is the smallest true difference that such pairs would have shown in 80% of experiments.
    """

    mean: float
    half_width: float
    n: int
    detectable: float

    @property
    def low(self) -> float:
        """Lower end; NaN without an interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end; NaN without an interval."""
        return self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; False without an interval."""
        return abs(self.mean) > self.half_width


def paired_interval(differences: Sequence[float]) -> Interval:
    """The mean of paired differences (one a seed) and its two-sided 95% t interval."""
    values = np.asarray(differences, dtype=float)
    if values.size == 0:
        raise ValueError("an interval needs at least one pair")
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Interval(mean, nan, 1, nan)
    deviation = float(values.std(ddof=1))
    half_width = float(t.ppf(1 - LEVEL / 2, n - 1)) * deviation / sqrt(n)
    return Interval(mean, half_width, n, minimal_detectable_effect(deviation, n))


def minimal_detectable_effect(deviation: float, n: int) -> float:
    """The true mean that a two-sided 5% paired t test on `n` pairs finds with 80% power; NaN below two pairs."""
    return nan if n < 2 else _detectable_shift(n) * deviation / sqrt(n)


@cache
def _detectable_shift(n: int) -> float:
    """The noncentrality at which the test on `n` pairs has 80% power."""
    critical = float(t.ppf(1 - LEVEL / 2, n - 1))
    # The noncentral t, as a mean of normals over the quantiles of the sample deviation: scipy's own nct gives NaN here.
    bars = critical * np.sqrt(chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, n - 1) / (n - 1))

    def power_missing(shift: float) -> float:
        return POWER - float(np.mean(norm.sf(bars - shift) + norm.cdf(-bars - shift)))

    return float(brentq(power_missing, 0.0, 5 * critical))


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
    """Tokens to equal loss, baseline / candidate, with a 95% interval; when `reason` is set nothing is claimed."""

    ratio: float
    low: float
    high: float
    n: int
    per_seed: Mapping[int, SeedRatio]
    reason: str | None = None


class _UnreadableError(Exception):
    """Why the finished points do not answer the question."""


def tokens_to_equal_loss(baseline: Mapping[int, Curve], candidate: Mapping[int, Curve]) -> EqualLoss:
    """How many times the candidate's tokens the baseline needs to reach the same loss; arguments map seed to curve.

    The loss asked for is the worse of the two arms' losses at their full budgets, so both attain it. Each arm's tokens
    there are read off a monotone cubic of log tokens against loss, between that arm's own finished runs and nowhere
    else; the interval is the paired t interval of the log ratio.
    """
    if set(baseline) != set(candidate):
        return _not_claimed("the arms do not have the same seeds", {})
    if len({max(curve, default=0) for curve in (*baseline.values(), *candidate.values())}) > 1:
        return _not_claimed("not every seed of both arms finished the same largest budget", {})
    per_seed: dict[int, SeedRatio] = {}
    try:
        for seed in sorted(baseline):
            per_seed[seed] = _seed_ratio(seed, baseline[seed], candidate[seed])
    except _UnreadableError as problem:
        return _not_claimed(str(problem), per_seed)
    if len(per_seed) < SEEDS_FOR_A_CLAIM:
        return _not_claimed(f"{len(per_seed)} paired seed(s), fewer than {SEEDS_FOR_A_CLAIM}", per_seed)
    log_ratio = paired_interval([float(np.log(reading.ratio)) for reading in per_seed.values()])
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
    losses = [curve[tokens] for tokens in sorted(curve)]
    if not all(isfinite(loss) for loss in losses):
        raise _UnreadableError(f"{owner} has a loss that is not a number")
    if any(later >= earlier for earlier, later in pairwise(losses)):
        raise _UnreadableError(f"{owner}'s finished losses do not fall with every larger budget")


def _tokens_at(loss: float, curve: Curve, owner: str) -> float:
    tokens = np.array(sorted(curve), dtype=float)
    losses = np.array([curve[int(count)] for count in tokens])
    if not losses[-1] <= loss <= losses[0]:
        side = "below its smallest budget" if loss > losses[0] else "above its largest budget"
        raise _UnreadableError(f"{owner} reaches the common loss {loss:.4f} {side}, outside its finished points")
    if loss == losses[-1]:
        return float(tokens[-1])
    return exp(float(PchipInterpolator(losses[::-1], np.log(tokens[::-1]))(loss)))


@dataclass(frozen=True)
class Ratio:
    """A ratio with the bounds that go with it."""

    value: float
    low: float
    high: float


def round_ratio(candidate_seconds: Sequence[float], baseline_seconds: Sequence[float]) -> Ratio:
    """Step cost candidate / baseline: the median over interleaved rounds, bounds the 5% and 95% quantiles of rounds."""
    rounds = np.asarray(candidate_seconds, dtype=float) / np.asarray(baseline_seconds, dtype=float)
    low, high = np.quantile(rounds, ROUND_QUANTILES)
    return Ratio(float(np.median(rounds)), float(low), float(high))


def time_to_equal_loss(tokens: EqualLoss, step_cost: Ratio) -> Ratio:
    """Time to equal loss, baseline / candidate: the token ratio over the step cost, at equal tokens a step.

    The bounds take each end of both at its worst, so they are wider than 95%. NaN when `tokens` claims nothing.
    """
    return Ratio(tokens.ratio / step_cost.value, tokens.low / step_cost.high, tokens.high / step_cost.low)
