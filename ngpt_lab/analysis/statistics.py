"""Paired statistics over a handful of seeds.

A t interval, because a percentile bootstrap over three seeds covers 73% where it says 95%, and a t test, because
flipping the signs of three differences cannot give a p value below 25%.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
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

    @property
    def p(self) -> float:
        """The p value of the two-sided paired t test; NaN without an interval, 1 where no pair differs at all."""
        if self.n < 2:
            return nan
        if self.half_width == 0:
            return float(self.mean == 0)
        return float(2 * t.sf(_critical(self.n, LEVEL) * abs(self.mean) / self.half_width, self.n - 1))


def paired_interval(differences: ArrayLike) -> Interval:
    """The mean of paired differences (one a seed) and its two-sided 95% t interval."""
    values = np.asarray(differences, dtype=float)
    if values.size == 0:
        raise ValueError("an interval needs at least one pair")
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Interval(mean, nan, 1, nan)
    deviation = float(values.std(ddof=1))
    half_width = _critical(n, LEVEL) * deviation / sqrt(n)
    return Interval(mean, half_width, n, minimal_detectable_effect(deviation, n))


def minimal_detectable_effect(deviation: float, n: int, level: float = LEVEL) -> float:
    """The true mean that a two-sided paired t test at `level` finds on `n` pairs with 80% power; NaN below two pairs."""
    return nan if n < 2 else _detectable_shift(n, level) * deviation / sqrt(n)


@cache
def _critical(n: int, level: float) -> float:
    return float(t.ppf(1 - level / 2, n - 1))


@cache
def _detectable_shift(n: int, level: float) -> float:
    """The noncentrality at which the test on `n` pairs has 80% power."""
    critical = _critical(n, level)
    # The noncentral t, as a mean of normals over the quantiles of the sample deviation: scipy's own nct gives NaN here.
    bars = critical * np.sqrt(chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, n - 1) / (n - 1))

    def power_missing(shift: float) -> float:
        return POWER - float(np.mean(norm.sf(bars - shift) + norm.cdf(-bars - shift)))

    return float(brentq(power_missing, 0.0, 5 * critical))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p values, in the order given; a NaN is no test: it stays NaN and does not count.

    Rejecting where they lie below 5% keeps the chance of even one false rejection among all tests below 5%.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]
    stepped = np.maximum.accumulate(values[order] * np.arange(order.size, 0, -1))
    adjusted = np.full_like(values, nan)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class Ratio:
    """A ratio with the bounds that go with it."""

    value: float
    low: float
    high: float


def round_ratio(candidate_seconds: ArrayLike, baseline_seconds: ArrayLike) -> Ratio:
    """Step cost candidate / baseline: the median over interleaved rounds, bounds the 5% and 95% quantiles of rounds."""
    rounds = np.asarray(candidate_seconds, dtype=float) / np.asarray(baseline_seconds, dtype=float)
    low, high = np.quantile(rounds, ROUND_QUANTILES)
    return Ratio(float(np.median(rounds)), float(low), float(high))
