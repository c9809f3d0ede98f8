import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ngpt_lab.analysis.statistics import (
    EqualLoss,
    Ratio,
    minimal_detectable_effect,
    paired_interval,
    round_ratio,
    time_to_equal_loss,
    tokens_to_equal_loss,
)

BUDGETS = (250_000, 500_000, 1_000_000)


def power_law(speed_up: float, offset: float = 0.0) -> dict[int, float]:
    return {tokens: 1.2 + offset + 60 * (speed_up * tokens) ** -0.33 for tokens in BUDGETS}


def test_the_t_interval_covers_the_truth_in_95_of_100_experiments_of_three_seeds() -> None:
    draws = np.random.default_rng(0).normal(0.3, 2.0, size=(6000, 3))
    intervals = [paired_interval(row) for row in draws]
    coverage = np.mean([interval.low <= 0.3 <= interval.high for interval in intervals])
    assert 0.93 < coverage < 0.97


def test_the_t_interval_is_that_of_scipys_paired_test() -> None:
    first, second = [2.1, 2.3, 1.9, 2.2], [2.0, 2.4, 1.7, 2.1]
    interval = paired_interval(np.subtract(first, second))
    expected = stats.ttest_rel(first, second).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_one_pair_has_no_interval_and_excludes_nothing() -> None:
    interval = paired_interval([0.4])
    assert interval.n == 1
    assert math.isnan(interval.half_width)
    assert math.isnan(interval.detectable)
    assert not interval.excludes_zero


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_detectable_effect_is_found_in_80_of_100_experiments(n: int) -> None:
    effect = minimal_detectable_effect(1.0, n)
    draws = np.random.default_rng(1).normal(effect, 1.0, size=(20_000, n))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.012)


def test_a_planted_speed_up_is_recovered_inside_its_interval() -> None:
    offsets = {1: 0.0, 2: 0.03, 3: -0.02}
    baseline = {seed: power_law(1.0, offset) for seed, offset in offsets.items()}
    candidate = {seed: power_law(1.5, offset + 0.002 * (seed - 2)) for seed, offset in offsets.items()}
    reading = tokens_to_equal_loss(baseline, candidate)
    assert reading.reason is None
    assert reading.ratio == pytest.approx(1.5, rel=0.03)
    assert reading.low < 1.5 < reading.high


def test_losses_linear_in_log_tokens_give_the_planted_speed_up_exactly() -> None:
    def line(speed_up: float) -> dict[int, float]:
        return {tokens: 9 - 0.5 * math.log(speed_up * tokens) for tokens in BUDGETS}

    reading = tokens_to_equal_loss({s: line(1.0) for s in range(3)}, {s: line(1.5) for s in range(3)})
    assert (reading.low, reading.ratio, reading.high) == pytest.approx((1.5, 1.5, 1.5))


def test_swapping_the_arms_inverts_the_ratio() -> None:
    one = {seed: power_law(1.0, 0.004 * seed) for seed in range(3)}
    other = {seed: power_law(1.3, 0.003 * seed**2) for seed in range(3)}
    forth, back = tokens_to_equal_loss(one, other), tokens_to_equal_loss(other, one)
    assert (forth.ratio, forth.low, forth.high) == pytest.approx((1 / back.ratio, 1 / back.high, 1 / back.low))


falling = st.lists(st.floats(0.5, 6.0), min_size=3, max_size=3, unique=True).map(lambda losses: sorted(losses)[::-1])


@given(st.lists(st.tuples(falling, falling), min_size=3, max_size=3))
def test_tokens_are_read_only_between_finished_points(pairs: list[tuple[list[float], list[float]]]) -> None:
    baseline = {seed: dict(zip(BUDGETS, pair[0], strict=True)) for seed, pair in enumerate(pairs)}
    candidate = {seed: dict(zip(BUDGETS, pair[1], strict=True)) for seed, pair in enumerate(pairs)}
    reading = tokens_to_equal_loss(baseline, candidate)
    for point in reading.per_seed.values():
        assert BUDGETS[0] * 0.999999 <= point.baseline_tokens <= BUDGETS[-1]
        assert BUDGETS[0] * 0.999999 <= point.candidate_tokens <= BUDGETS[-1]
    disjoint = any(pair[0][0] < pair[1][-1] or pair[1][0] < pair[0][-1] for pair in pairs)
    assert (reading.reason is not None) == disjoint


THREE = {seed: power_law(1.0) for seed in range(3)}


@pytest.mark.parametrize(
    ("baseline", "candidate", "reason"),
    [
        (THREE, {seed: power_law(9.0) for seed in range(3)}, "outside its finished points"),
        (THREE, {seed: dict.fromkeys(BUDGETS, 2.0) for seed in range(3)}, "do not fall"),
        (THREE, THREE | {1: {BUDGETS[0]: 2.0, BUDGETS[1]: 2.1, BUDGETS[2]: 1.9}}, "do not fall"),
        ({0: THREE[0], 1: THREE[1]}, {0: THREE[0], 1: THREE[1]}, "fewer than 3"),
        ({}, {}, "fewer than 3"),
        (THREE, {seed + 1: power_law(1.5) for seed in range(3)}, "same seeds"),
        (THREE, THREE | {1: {BUDGETS[0]: 2.0, BUDGETS[1]: 1.9}}, "same largest budget"),
        (THREE, THREE | {1: dict.fromkeys(BUDGETS, math.nan)}, "not a number"),
    ],
)
def test_nothing_is_claimed_without_ground(baseline: dict, candidate: dict, reason: str) -> None:
    reading = tokens_to_equal_loss(baseline, candidate)
    assert reason in str(reading.reason)
    assert math.isnan(reading.ratio)


def test_a_slow_spell_of_the_machine_leaves_the_step_ratio_alone() -> None:
    weather = np.array([1.0, 1.0, 3.0, 1.2, 1.0])
    ratio = round_ratio(0.05 * weather * 1.25, 0.05 * weather)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((1.25, 1.25, 1.25))


def test_a_costly_step_eats_up_a_saving_in_tokens() -> None:
    tokens = EqualLoss(1.5, 1.2, 1.8, 3, {})
    time = time_to_equal_loss(tokens, Ratio(1.25, 1.2, 1.5))
    assert (time.value, time.low, time.high) == pytest.approx((1.2, 0.8, 1.5))
