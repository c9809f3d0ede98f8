"""The sentences a report opens with."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from ngpt_lab.analysis.statistics import SEEDS_FOR_A_CLAIM, Interval, Ratio

PUBLISHED_PARAMETERS = 500_000_000
PUBLISHED_TOKENS = 10_000_000_000


@dataclass(frozen=True)
class Claim:
    """`verdict` is the plain answer, `sentence` the numbers that it stands on."""

    verdict: str
    sentence: str


def make_claim(
    candidate: str, baseline: str, difference: Interval | None, size: tuple[int, int], step_ratio: Ratio | None
) -> Claim:
    """The claim on the test split in bits per byte; `size` is (tokens, parameters), None where there is no pair."""
    if difference is None:
        return Claim("No claim: the arms share no seed whose test loss was read at the largest budget.", "")
    parts = [_numbers(candidate, baseline, difference, size), _cost(step_ratio)]
    sentence = "; ".join(part for part in parts if part) + "."
    if size[0] < PUBLISHED_TOKENS or size[1] < PUBLISHED_PARAMETERS:
        sentence += " Published gains are for >= 0.5B parameters and >= 10B tokens; this run neither supports nor refutes them."
    return Claim(_verdict(candidate, baseline, difference), sentence)


def _verdict(candidate: str, baseline: str, difference: Interval) -> str:
    if difference.n < SEEDS_FOR_A_CLAIM:
        return f"No claim: {seeds(difference.n)}, and a claim needs at least {SEEDS_FOR_A_CLAIM}."
    if not difference.excludes_zero:
        return (
            f"Cannot tell {candidate} from {baseline}: the interval contains 0; only a difference of "
            f"{difference.detectable:.4f} bits per byte or more would have been found in 80% of such comparisons."
        )
    lower = candidate if difference.mean < 0 else baseline
    return f"{lower} has the lower test loss: the interval of {candidate} - {baseline} does not contain 0."


def _numbers(candidate: str, baseline: str, difference: Interval, size: tuple[int, int]) -> str:
    tokens, parameters = size
    spread = ", no interval" if isnan(difference.half_width) else ""
    bounds = "" if spread else f" +- {difference.half_width:.4f}"
    return (
        f"At {tokens:,} tokens and {short(parameters)} parameters, {candidate} - {baseline} = "
        f"{difference.mean:+.4f}{bounds} bits per byte (paired, {seeds(difference.n)}{spread})"
    )


def _cost(step_ratio: Ratio | None) -> str:
    return (
        "the cost of a step was not measured" if step_ratio is None else (f"a step costs {step_ratio.value:.2f} times as much")
    )


def seeds(count: int) -> str:
    """'1 seed', '3 seeds'."""
    return f"{count} seed" + ("" if count == 1 else "s")


def short(count: float) -> str:
    """Three digits and a unit: 854k, 1.03M, 8.1B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"
