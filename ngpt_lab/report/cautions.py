"""What a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ngpt_lab.analysis.runs import at_full_budget, of_arm
from ngpt_lab.analysis.settings import settings_that_differ_within
from ngpt_lab.report.comparison import Condition
from ngpt_lab.report.tuning import chosen_inside

CLIPPED_SHARE_APART = 0.2
PARAMETERS_APART_PERCENT = 0.5
_SAID_OF_EACH = 3
"""Of more arms than these the same thing is said once, with their names."""
_SAME_FOR_ALL = {
    "data": "data",
    "device": "device",
    "versions": "software versions",
    "commit": "commit",
    "diff": "uncommitted changes",
}


def cautions(condition: Condition, arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each thing that makes the comparison less fair or less complete; `arms` as in the summary."""
    found: list[str | None] = [_no_baseline(condition)]
    for said in (_parameters, _clipping, _seeds):
        found += _folded({arm: said(arm, condition.baseline, arms) for arm in condition.candidates})
    found += [_untuned(arms)] if condition.candidates else []
    found += [_within(condition, arm) for arm in condition.arms]
    found += [_not_the_same(condition, key, name) for key, name in _SAME_FOR_ALL.items()]
    return [sentence for sentence in found if sentence]


def _no_baseline(condition: Condition) -> str | None:
    if condition.baseline in condition.arms:
        return None
    return f"The baseline {condition.baseline} has no finished run here, so nothing is compared."


def _folded(told: Mapping[str, str | None]) -> list[str]:
    """The sentences; of many, the first and the names of the other arms."""
    said = {arm: sentence for arm, sentence in told.items() if sentence}
    if len(said) <= _SAID_OF_EACH:
        return list(said.values())
    first, *others = said
    return [f"{said[first]} The like holds for {len(others)} more: {', '.join(others)}."]


def _parameters(candidate: str, baseline: str, arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    percent = arms[candidate]["parameters_percent"]
    if abs(percent) <= PARAMETERS_APART_PERCENT:
        return None
    return f"{candidate} has {percent:+.2f}% parameters against {baseline}: more than {PARAMETERS_APART_PERCENT}% apart."


def _clipping(candidate: str, baseline: str, arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    own, other = arms[candidate]["clipped_share"], arms[baseline]["clipped_share"]
    if own is None or other is None or abs(own - other) <= CLIPPED_SHARE_APART:
        return None
    return (
        f"Gradient clipping acts on {own:.0%} of the steps of {candidate} and on {other:.0%} of those of {baseline}: "
        "part of any difference may come from clipping."
    )


def _seeds(candidate: str, baseline: str, arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    own, other = arms[candidate]["seeds"], arms[baseline]["seeds"]
    if own == other:
        return None
    return f"Seeds differ: {candidate} has {own}, {baseline} has {other}; only shared seeds are compared."


def _untuned(arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Settings that no search chose inside its grid, at the budget of the claim."""
    status = {arm: told["tuning"][max(told["tuning"])] for arm, told in arms.items()}
    if all(chosen_inside(text) for text in status.values()):
        return None
    return f"Part of any difference may come from how the settings were chosen. {_by_status(status)}"


def _by_status(status: Mapping[str, str]) -> str:
    if len(status) <= _SAID_OF_EACH:
        return " ".join(f"{arm}: {text}." for arm, text in status.items())
    owners: dict[str, list[str]] = {}
    for arm, text in status.items():
        owners.setdefault(text, []).append(arm)
    return " ".join(f"{_some(names)}: {text}." for text, names in owners.items())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _SAID_OF_EACH else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _within(condition: Condition, arm: str) -> str | None:
    keys = settings_that_differ_within(condition.runs, arm)
    return f"Runs of {arm} at the same budget differ among themselves in {', '.join(keys)}." if keys else None


def _not_the_same(condition: Condition, key: str, name: str) -> str | None:
    full = [run for arm in condition.arms for run in at_full_budget(of_arm(condition.runs, arm))]
    same = len({repr(_without_seeds(run.record.get(key))) for run in full}) == 1
    return None if same else f"Not every run has the same {name}."


def _without_seeds(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if not key.endswith("seed")}
