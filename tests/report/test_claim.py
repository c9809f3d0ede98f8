import math

import pytest

from ngpt_lab.analysis.statistics import Interval, Ratio, paired_interval
from ngpt_lab.report.claim import make_claim, short

SMALL = (819_200, 856_000)


def test_the_sentence_holds_the_numbers() -> None:
    claim = make_claim("ngpt", "nemotron", Interval(-0.04126, 0.031, 3, 0.05), SMALL, Ratio(1.236, 1.2, 1.3))
    assert claim.sentence == (
        "At 819,200 tokens and 856k parameters, ngpt - nemotron = -0.0413 +- 0.0310 bits per byte (paired, 3 seeds); "
        "a step costs 1.24 times as much. Published gains are for >= 0.5B parameters and >= 10B tokens; "
        "this run neither supports nor refutes them."
    )


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-0.10, -0.11, -0.12], "ngpt has the lower test loss"),
        ([0.10, 0.11, 0.12], "nemotron has the lower test loss"),
        ([-0.1, 0.1, -0.05], "Cannot tell ngpt from nemotron"),
        ([0.0, 0.0, 0.0], "Cannot tell"),
        ([-0.1, -0.1], "No claim: 2 seeds"),
        ([-0.1], "No claim: 1 seed,"),
    ],
)
def test_the_verdict_follows_the_interval(differences: list[float], verdict: str) -> None:
    claim = make_claim("ngpt", "nemotron", paired_interval(differences), SMALL, None)
    assert claim.verdict.startswith(verdict)


def test_cannot_tell_comes_with_what_could_have_been_told() -> None:
    interval = paired_interval([-0.1, 0.1, -0.05])
    verdict = make_claim("ngpt", "nemotron", interval, SMALL, None).verdict
    assert f"{interval.detectable:.4f} bits per byte" in verdict


def test_one_seed_has_no_interval_in_the_sentence() -> None:
    sentence = make_claim("a", "b", Interval(0.1, math.nan, 1, math.nan), SMALL, None).sentence
    assert "a - b = +0.1000 bits per byte (paired, 1 seed, no interval); the cost of a step was not" in sentence


def test_without_a_pair_there_is_no_claim() -> None:
    assert make_claim("a", "b", None, SMALL, None).verdict.startswith("No claim")


@pytest.mark.parametrize(
    ("size", "below"),
    [((10**10, 5 * 10**8), False), ((10**10 - 1, 5 * 10**8), True), ((10**10, 5 * 10**8 - 1), True)],
)
def test_published_sizes_are_named_only_below_them(size: tuple[int, int], below: bool) -> None:
    claim = make_claim("a", "b", Interval(0.1, 0.2, 3, 0.3), size, None)
    assert ("Published gains" in claim.sentence) == below


def test_counts_are_short() -> None:
    assert [short(n) for n in (12, 854_000, 1_030_000, 8_100_000_000)] == ["12", "854k", "1.03M", "8.1B"]
