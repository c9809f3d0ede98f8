import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.analysis.equal_loss import EqualLoss, time_to_equal_loss, tokens_to_equal_loss
from ngpt_lab.analysis.statistics import Ratio

BUDGETS = (250_000, 500_000, 1_000_000)


def power_law(speed_up: float, offset: float = 0.0) -> dict[int, float]:
    return {tokens: 1.2 + offset + 60 * (speed_up * tokens) ** -0.33 for tokens in BUDGETS}


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
        (THREE, {seed: {} for seed in range(3)}, "no finished run"),
    ],
)
def test_nothing_is_claimed_without_ground(baseline: dict, candidate: dict, reason: str) -> None:
    reading = tokens_to_equal_loss(baseline, candidate)
    assert reason in str(reading.reason)
    assert math.isnan(reading.ratio)


@given(st.floats(1.0, 1.4), st.integers(2, 9), st.integers(2, 9))
def test_flops_to_equal_loss_are_what_curves_over_flops_give(speed_up: float, of_baseline: int, of_candidate: int) -> None:
    def over_flops(curve: dict[int, float], cost: int) -> dict[int, float]:
        return {tokens * cost: loss for tokens, loss in curve.items()}

    baseline = {seed: power_law(1.0, 0.01 * seed) for seed in range(3)}
    candidate = {seed: power_law(speed_up, 0.007 * seed**2) for seed in range(3)}
    priced = tokens_to_equal_loss(baseline, candidate).at_cost(of_baseline, of_candidate)
    direct = tokens_to_equal_loss(
        {seed: over_flops(curve, of_baseline) for seed, curve in baseline.items()},
        {seed: over_flops(curve, of_candidate) for seed, curve in candidate.items()},
    )
    assert (priced.low, priced.ratio, priced.high) == pytest.approx((direct.low, direct.ratio, direct.high))


def test_arms_may_end_at_different_budgets() -> None:
    def curve(speed_up: float, budgets: tuple[int, ...]) -> dict[int, float]:
        return {tokens: 9 - 0.5 * math.log(speed_up * tokens) for tokens in budgets}

    large = tuple(8 * tokens for tokens in BUDGETS)
    reading = tokens_to_equal_loss({s: curve(1.0, large) for s in range(3)}, {s: curve(6.0, BUDGETS) for s in range(3)})
    assert reading.ratio == pytest.approx(6.0)


@given(st.floats(-1, 5), st.integers(1, 50))
def test_the_unit_of_loss_and_of_tokens_does_not_matter(constant: float, scale: int) -> None:
    baseline = {seed: power_law(1.0, 0.004 * seed) for seed in range(3)}
    candidate = {seed: power_law(1.3, 0.003 * seed**2) for seed in range(3)}

    def moved(curves: dict[int, dict[int, float]]) -> dict[int, dict[int, float]]:
        return {seed: {scale * tokens: loss + constant for tokens, loss in own.items()} for seed, own in curves.items()}

    before, after = tokens_to_equal_loss(baseline, candidate), tokens_to_equal_loss(moved(baseline), moved(candidate))
    assert (after.low, after.ratio, after.high) == pytest.approx((before.low, before.ratio, before.high))


@pytest.mark.parametrize(
    ("budgets", "error"), [([25_600 * 2**k for k in range(6)], 0.004), ([25_600 * 4**k for k in range(4)], 0.025)]
)
def test_without_noise_only_the_small_error_of_the_cubic_is_left(budgets: list[int], error: float) -> None:
    def curve(speed_up: float) -> dict[int, float]:
        return {tokens: 1.2 + 60 * (speed_up * tokens) ** -0.33 for tokens in budgets}

    for speed_up in np.geomspace(1, 10, 40):
        reading = tokens_to_equal_loss(dict.fromkeys(range(3), curve(1.0)), dict.fromkeys(range(3), curve(speed_up)))
        assert reading.ratio == pytest.approx(speed_up, rel=error)


def test_a_costly_step_eats_up_a_saving_in_tokens() -> None:
    tokens = EqualLoss(1.5, 1.2, 1.8, 3, {})
    time = time_to_equal_loss(tokens, Ratio(1.25, 1.2, 1.5))
    assert (time.value, time.low, time.high) == pytest.approx((1.2, 0.8, 1.5))
