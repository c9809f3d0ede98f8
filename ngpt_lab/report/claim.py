"""The sentences a report opens with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from ngpt_lab.analysis.columns import CLAIM_METRIC
from ngpt_lab.analysis.statistics import LEVEL, POWER, SEEDS_FOR_A_CLAIM, Interval, Ratio
from ngpt_lab.report.measures import ALL_MEASURES, lower_is_better

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
    measure: str = CLAIM_METRIC,
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
        return f"Cannot tell {candidate} from {baseline}: the interval contains 0; {_missed(difference, measure, adjusted)}"
    if adjusted is not None and not adjusted.significant:
        return (
            f"Cannot tell {candidate} from {baseline}: the interval leaves 0 out, but among {adjusted.among} comparisons "
            f"that is no evidence (Holm's p = {adjusted.p:.3f}); {_missed(difference, measure, adjusted)}"
        )
    better = candidate if (difference.mean < 0) == lower_is_better(measure) else baseline
    word = "lower" if lower_is_better(measure) else "higher"
    corrected = f"; after Holm's correction for {adjusted.among} comparisons p = {adjusted.p:.3g}" if adjusted else ""
    return (
        f"{better} has the {word} {_quantity(measure)}: the interval of {candidate} - {baseline} does not contain 0{corrected}."
    )


def _missed(difference: Interval, measure: str, adjusted: Adjusted | None) -> str:
    return (
        f"only a difference of {difference.detectable:.4f} {ALL_MEASURES[measure][1]} or more would have been found in "
        f"{POWER:.0%} of such {'tables' if adjusted else 'comparisons'}."
    )


def overview(baseline: str, arms: Sequence[str], effects: Mapping[str, Mapping[str, Any]], measure: str) -> str:
    """One sentence on several arms: which differ from the baseline after Holm's correction, the largest effects first.

    An arm without a difference comes with the smallest that would have been found; those not tested are named apart.
    """
    tested = [arm for arm in arms if arm in effects and effects[arm]["n"] >= SEEDS_FOR_A_CLAIM]
    told = sorted((arm for arm in tested if effects[arm]["significant"]), key=lambda arm: -abs(effects[arm]["effect"]))
    good = [arm for arm in told if (effects[arm]["effect"] < 0) == lower_is_better(measure)]
    found = {arm: f"{arm} ({effects[arm]['effect']:+.4f})" for arm in told}
    missed = [f"{arm} ({effects[arm]['detectable']:.4f})" for arm in tested if arm not in told]
    paired = [arm for arm in arms if arm in effects and 0 < effects[arm]["n"] < SEEDS_FOR_A_CLAIM]
    apart = [arm for arm in arms if arm not in effects or not effects[arm]["n"]]
    rest = (
        ("better", [found[arm] for arm in good]),
        ("worse", [found[arm] for arm in told if arm not in good]),
        (f"no difference was shown (in brackets the smallest that would have been, in {POWER:.0%} of such tables)", missed),
        (f"not tested for want of {SEEDS_FOR_A_CLAIM} seeds", paired),
        (f"not tested, as they share no seed with {baseline}", apart),
    )
    among = f"{len(told)} of {len(tested)} tested arms differ" if tested else "No arm could be tested for a difference"
    first = f"{among} from {baseline} in {_quantity(measure)}" + (" after Holm's correction" if tested else "")
    return "; ".join([first, *(f"{part}: {_listed(names)}" for part, names in rest if names)]) + "."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


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
