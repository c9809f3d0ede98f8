"""The learning rate as a function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.training.schedules import Cosine, Linear, Schedule, WarmupStableDecay

STEPS = 100


def curve(schedule: Schedule, steps: int = STEPS, tokens_per_step: int = 10) -> list[float]:
    return [schedule.factor(step, steps, tokens_per_step) for step in range(steps)]


@pytest.mark.parametrize("kind", [Cosine, Linear, WarmupStableDecay])
@given(warmup=st.floats(0, 0.5), steps=st.integers(20, 300))
def test_it_rises_to_the_peak_once_and_falls_to_the_end(kind: type[Schedule], warmup: float, steps: int) -> None:
    factors = curve(kind(warmup=warmup), steps)
    top = factors.index(max(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] < 0.7


def test_a_share_steps_and_tokens_say_the_same() -> None:
    share = curve(Cosine(warmup=0.2))
    assert curve(Cosine(warmup=20)) == share
    assert curve(Cosine(warmup=200, unit="tokens")) == share
    assert curve(Cosine(warmup=200, length=1000, unit="tokens")) == share


def test_shapes_at_known_points() -> None:
    assert Cosine().factor(50, STEPS, 1) == pytest.approx(0.5)
    assert Linear(final=0.2).factor(50, STEPS, 1) == pytest.approx(0.6)
    assert WarmupStableDecay(decay=0.5).factor(49, STEPS, 1) == 1
    assert WarmupStableDecay(decay=0.5).factor(75, STEPS, 1) == pytest.approx(0.5)


def test_after_its_length_it_stays_at_the_end() -> None:
    assert curve(Linear(length=50, final=0.1))[60:] == [pytest.approx(0.1)] * 40
