import math
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ngpt_lab.analysis.statistics import (
    holm,
    minimal_detectable_effect,
    paired_interval,
    round_ratio,
)

seed_losses = st.integers(2, 10).flatmap(lambda n: arrays(float, (2, n), elements=st.floats(0.5, 6.0)))


@given(seed_losses)
def test_interval_and_p_value_are_those_of_scipys_paired_test(losses: np.ndarray) -> None:
    first, second = losses
    assume(np.std(first - second) > 1e-6)
    interval = paired_interval(first - second)
    expected = stats.ttest_rel(first, second)
    bounds = expected.confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high))
    assert interval.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert interval.excludes_zero == (interval.p < 0.05)


@given(arrays(float, 3, elements=st.floats(-5, 5)))
def test_three_seeds_give_an_interval_that_no_bootstrap_could(differences: np.ndarray) -> None:
    assume(np.std(differences) > 1e-6)
    interval = paired_interval(differences)
    # Means of resamples, whatever percentile is taken, stay between the smallest and the largest seed.
    assert interval.low < differences.min()
    assert differences.max() < interval.high


def test_seeds_that_do_not_differ_at_all_are_no_evidence() -> None:
    assert paired_interval([0.0, 0.0, 0.0]).p == 1
    assert paired_interval([0.5, 0.5, 0.5]).p == 0


@given(seed_losses, st.floats(-10, 10))
def test_a_constant_added_to_both_arms_changes_nothing(losses: np.ndarray, constant: float) -> None:
    before, after = (paired_interval(arms[0] - arms[1]) for arms in (losses, losses + constant))
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=1e-9)


def test_one_pair_has_no_interval_and_excludes_nothing() -> None:
    interval = paired_interval([0.4])
    assert interval.n == 1
    assert math.isnan(interval.half_width)
    assert math.isnan(interval.detectable)
    assert math.isnan(interval.p)
    assert not interval.excludes_zero


@pytest.mark.parametrize(("n", "level"), [(2, 0.05), (3, 0.05), (3, 0.05 / 20), (5, 0.05), (5, 0.05 / 20)])
def test_a_detectable_effect_is_found_in_80_of_100_experiments(n: int, level: float) -> None:
    effect = minimal_detectable_effect(1.0, n, level)
    draws = np.random.default_rng(1).normal(effect, 1.0, size=(20_000, n))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < level
    assert found.mean() == pytest.approx(0.8, abs=0.012)


# p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R; the p values are those of Wikipedia's example of the procedure, which
# rejects the first and the last.
def test_holms_adjusted_values_are_those_of_the_published_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


probabilities = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12)


@given(probabilities)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    tested = sorted(p for p in p_values if not math.isnan(p))
    passed = 0
    while passed < len(tested) and tested[passed] * (len(tested) - passed) < 0.05:
        passed += 1
    assert np.sum(holm(p_values) < 0.05) == passed


@given(probabilities, st.randoms())
def test_holm_does_not_depend_on_the_order_and_leaves_nan_alone(p_values: list[float], random: Random) -> None:
    order = random.sample(range(len(p_values)), len(p_values))
    adjusted = holm(p_values)
    assert np.array_equal(holm([p_values[place] for place in order]), adjusted[order], equal_nan=True)
    assert np.array_equal(np.isnan(adjusted), np.isnan(p_values))
    assert np.all((adjusted >= p_values) | np.isnan(adjusted))
    assert np.all((adjusted <= 1) | np.isnan(adjusted))


def test_a_slow_spell_of_the_machine_leaves_the_step_ratio_alone() -> None:
    weather = np.array([1.0, 1.0, 3.0, 1.2, 1.0])
    ratio = round_ratio(0.05 * weather * 1.25, 0.05 * weather)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.25, 1.25, 1.25))
