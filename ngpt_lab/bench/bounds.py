"""Bounds on what is measured: a file names measurements of `ngpt-lab bench` and what their figures must keep within."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ngpt_lab.bench.timing import ratio
from ngpt_lab.errors import InputError

# How wide the 95% interval of a ratio may be, to either side, for its bound to be met by the interval instead of the median.
WIDEST = 0.02
# The measurements whose figures are told by arm.
BY_ARM = ("step", "generate", "projection", "loss")


@dataclass(frozen=True)
class Bound:
    """What one figure must keep within.

    Where an entry of `arms` names several, the fastest of them is meant.

    Args:
        says: what is bounded, in words.
        of: which measurement it is a figure of.
        arms: whose figure; of two, the first is divided by the second.
        key: which figure of an arm, dotted; seconds are divided round by round.
        phase: which part of the measurement, where it has several.
        most: the upper bound.
        least: the lower bound; with neither, the figure is told and nothing is asked of it.
    """

    says: str
    of: str
    arms: Sequence[str | Sequence[str]]
    key: str = "seconds"
    phase: str | None = None
    most: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A figure against its bound.

    Args:
        value: the figure; of seconds the median ratio.
        half_width: the 95% half-width of a ratio of seconds.
        arms: the arms that were chosen.
        met: whether it keeps within the bound; None where nothing is asked.
        left_out: the named arms that were not measured, and why.
    """

    value: float
    half_width: float | None
    arms: Sequence[str]
    met: bool | None
    left_out: Mapping[str, str] = field(default_factory=dict)


def read_bounds(path: Path) -> tuple[dict[str, str], list[Bound]]:
    """The measurements of a file, as words of `ngpt-lab bench`, and its bounds.

    Raises:
        InputError: the file cannot be read, or says something that has no meaning here.
    """
    try:
        content = yaml.safe_load(path.read_text())
        measurements = {str(name): joined(words) for name, words in content["measurements"].items()}
        bounds = [Bound(**entry) for entry in content["bounds"]]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a file of bounds") from error
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no file of bounds ({error}): it needs measurements, by name, and a list of bounds"
        ) from error
    for name, words in measurements.items():
        check_words(path, name, words)
    for bound in bounds:
        check_types(path, bound)
        if bound.of not in measurements:
            raise InputError(f"{path}: {bound.says!r} is of {bound.of}, which is not among {', '.join(measurements)}")
        if len(bound.arms) not in (1, 2) or (bound.key == "seconds" and len(bound.arms) == 1):
            raise InputError(f"{path}: {bound.says!r} needs the one arm whose {bound.key} it is of, or two that are divided")
    return measurements, bounds


def check_words(path: Path, name: str, words: str) -> None:
    """Refuse a measurement that cannot be started, or whose figures are not told by arm.

    Raises:
        InputError: it is one.
    """
    try:
        what = next(iter(shlex.split(words)), "")
    except ValueError as error:
        raise InputError(f"{path}: the words of {name} cannot be told apart ({error}): close what is quoted") from error
    if what not in BY_ARM:
        raise InputError(f"{path}: {name} is a measurement {what!r}, which has no arms: choose one of {', '.join(BY_ARM)}")


def check_types(path: Path, bound: Bound) -> None:
    """Refuse a bound whose entries are of other types than they must be.

    Raises:
        InputError: it has one.
    """
    for name in ("says", "of", "key", *(["phase"] if bound.phase is not None else [])):
        if not isinstance(getattr(bound, name), str):
            raise InputError(f"{path}: the {name} of {bound.says!r} is {getattr(bound, name)!r}: give it as text")
    for name in ("most", "least"):
        value = getattr(bound, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise InputError(f"{path}: {name} of {bound.says!r} is {value!r}: give a number, as 1.03")
    if not isinstance(bound.arms, list) or not all(
        group and all(isinstance(n, str) for n in named(group)) for group in bound.arms
    ):
        raise InputError(f"{path}: the arms of {bound.says!r} are {bound.arms!r}: give a list of names, or of lists of names")


def joined(words: str | Sequence[str]) -> str:
    """The words of a measurement, which may come in pieces."""
    return words if isinstance(words, str) else " ".join(words)


def judge(bound: Bound, figures: Mapping[str, Any]) -> Verdict:
    """A measurement's figure against its bound.

    Raises:
        InputError: the measurement has no such arm or figure, perhaps because it was left out.
    """
    try:
        arms = (figures[bound.phase] if bound.phase else figures)["arms"]
        chosen = [fastest(named(group), arms) for group in bound.arms]
        if bound.key == "seconds":
            paired = ratio(*(arms[name]["seconds"] for name in chosen))
            value, half_width = float(paired["median"]), float(paired["half_width"])
        else:
            first, *others = (float(looked_up(arms[name], bound.key)) for name in chosen)
            value, half_width = first / others[0] if others else first, None
    except (KeyError, TypeError) as error:
        raise InputError(f"{bound.says!r}: {bound.of} has no {error}") from error
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{bound.says!r}: the {bound.key} of {bound.of} makes no figure ({error})") from error
    reasons = figures.get("left_out", {})
    left_out = {name: reasons.get(name, "not measured") for group in bound.arms for name in named(group) if name not in arms}
    # Who is divided by fewer than were named is held to less than was asked.
    whole = len(bound.arms) == 1 or left_out.keys().isdisjoint(named(bound.arms[-1]))
    return Verdict(value, half_width, chosen, met(bound, value, half_width) and whole, left_out)


def named(group: str | Sequence[str]) -> Sequence[str]:
    """The arms that an entry of `arms` names."""
    return [group] if isinstance(group, str) else group


def met(bound: Bound, value: float, half_width: float | None) -> bool | None:
    """Whether a figure keeps within its bound, or beyond it by less than a half-width that is narrow enough."""
    if bound.most is None and bound.least is None:
        return None
    if not math.isfinite(value):
        return False
    slack = half_width if half_width is not None and half_width <= WIDEST else 0.0
    beyond = max(
        value - bound.most if bound.most is not None else -1.0, bound.least - value if bound.least is not None else -1.0
    )
    return beyond <= 0 or beyond < slack


def fastest(names: Sequence[str], arms: Mapping[str, Any]) -> str:
    """Of several arms, those that were left out aside, the one whose median is least.

    Raises:
        KeyError: none is left.
    """
    there = [name for name in names if name in arms]
    if not there:
        raise KeyError(" or ".join(names))
    return min(there, key=lambda name: float(arms[name]["median"]))


def looked_up(arm: Mapping[str, Any], key: str) -> Any:
    """The entry of a dotted key."""
    value: Any = arm
    for part in key.split("."):
        value = value[part]
    return value
