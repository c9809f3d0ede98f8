"""The sentences a report opens with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from ngpt_lab.analysis.statistics import LEVEL, SEEDS_FOR_A_CLAIM, Interval, Ratio
from ngpt_lab.report.measures import ALL_MEASURES, CLAIM_MEASURE, lower_is_better

PUBLISHED_PARAMETERS = 500_000_000
PUBLISHED_TOKENS = 10_000_000_000
_NAMED = 8


@dataclass(frozen=True)
class Claim:
    """`verdict` is the plain answer, `sentence` the numbers that it stands on."""

    verdict: str
    sentence: str


@dataclass(frozen=True)
class Adjusted:
    """Holm's p value of one comparison among several."""

    p: float
    among: int

    @property
    def significant(self) -> bool:
        """Whether it lies below 5%."""
        return self.p < LEVEL


def make_claim(
    candidate: str,
    baseline: str,
    difference: Interval | None,
    size: tuple[int, int],
    step_ratio: Ratio | None,
    measure: str = CLAIM_MEASURE,
    adjusted: Adjusted | None = None,
) -> Claim:
    """The claim on one measure; `size` is (tokens, parameters).

    `difference` is None where there is no pair, `adjusted` where this is the only comparison.
    """
    unit = ALL_MEASURES[measure][1]
    if difference is None:
        return Claim(f"No claim: the arms share no seed whose {_quantity(measure)} was read at the largest budget.", "")
    parts = [_numbers(candidate, baseline, difference, size, unit), _cost(step_ratio)]
    sentence = f"{'; '.join(parts)}. {beside_published(size)}".strip()
    return Claim(_verdict(candidate, baseline, difference, measure, adjusted), sentence)


def beside_published(size: tuple[int, int]) -> str:
    """What a result at so many tokens and parameters says about the published ones; nothing at their size."""
    if size[0] >= PUBLISHED_TOKENS and size[1] >= PUBLISHED_PARAMETERS:
        return ""
    return "Published gains are for >= 0.5B parameters and >= 10B tokens; this run neither supports nor refutes them."


def _quantity(measure: str) -> str:
    return f"{ALL_MEASURES[measure][0]} {'loss' if lower_is_better(measure) else 'accuracy'}"


def _verdict(candidate: str, baseline: str, difference: Interval, measure: str, adjusted: Adjusted | None) -> str:
    if difference.n < SEEDS_FOR_A_CLAIM:
        return f"No claim: {seeds(difference.n)}, and a claim needs at least {SEEDS_FOR_A_CLAIM}."
    if not difference.excludes_zero:
        return (
            f"Cannot tell {candidate} from {baseline}: the interval contains 0; only a difference of "
            f"{difference.detectable:.4f} {ALL_MEASURES[measure][1]} or more would have been found in 80% of such comparisons."
        )
    if adjusted is not None and not adjusted.significant:
        return (
            f"Cannot tell {candidate} from {baseline}: the interval leaves 0 out, but among {adjusted.among} comparisons "
            f"that is no evidence (Holm's p = {adjusted.p:.3f})."
        )
    better = candidate if (difference.mean < 0) == lower_is_better(measure) else baseline
    word = "lower" if lower_is_better(measure) else "higher"
    corrected = f"; after Holm's correction for {adjusted.among} comparisons p = {adjusted.p:.3g}" if adjusted else ""
    return (
        f"{better} has the {word} {_quantity(measure)}: the interval of {candidate} - {baseline} does not contain 0{corrected}."
    )


def overview(baseline: str, arms: Sequence[str], effects: Mapping[str, Mapping[str, Any]], measure: str) -> str:
    """One sentence on several arms: which differ from the baseline after Holm's correction, the largest effects first."""
    told = [arm for arm in arms if arm in effects and effects[arm]["significant"]]
    told = sorted(told, key=lambda arm: -abs(effects[arm]["effect"]))
    good = [arm for arm in told if (effects[arm]["effect"] < 0) == lower_is_better(measure)]
    bad = [arm for arm in told if arm not in good]
    others = len(arms) - len(told)
    parts = [f"{len(told)} of {len(arms)} arms differ from {baseline} in {_quantity(measure)} after Holm's correction"]
    parts += [f"{word}: {_named(some, effects)}" for word, some in (("better", good), ("worse", bad)) if some]
    parts += [f"for the other {others} no difference was shown" if told else "no difference was shown"] if others else []
    return "; ".join(parts) + "."


def _named(arms: Sequence[str], effects: Mapping[str, Mapping[str, Any]]) -> str:
    named = ", ".join(f"{arm} ({effects[arm]['effect']:+.4f})" for arm in arms[:_NAMED])
    return named if len(arms) <= _NAMED else f"{named} and {len(arms) - _NAMED} more"


def _numbers(candidate: str, baseline: str, difference: Interval, size: tuple[int, int], unit: str) -> str:
    tokens, parameters = size
    spread = ", no interval" if isnan(difference.half_width) else ""
    bounds = "" if spread else f" +- {difference.half_width:.4f}"
    return (
        f"At {tokens:,} tokens and {short(parameters)} parameters, {candidate} - {baseline} = "
        f"{difference.mean:+.4f}{bounds} {unit} (paired, {seeds(difference.n)}{spread})"
    )


def _cost(step_ratio: Ratio | None) -> str:
    return (
        "the cost of a step was not measured" if step_ratio is None else (f"a step costs {step_ratio.value:.2f} times as much")
    )


def seeds(count: int) -> str:
    """'1 seed', '3 seeds'."""
    return f"{count} seed" + ("" if count == 1 else "s")


def short(count: float) -> str:
    """Three digits and a unit: 854k, 1.03M, 8.1B, 2.5e+15."""
    for size, unit in ((1e15, None), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count:.3g}" if unit is None else f"{count / size:.3g}{unit}"
    return f"{count:g}"
