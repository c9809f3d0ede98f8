"""What a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ngpt_lab.analysis.runs import at_full_budget, of_arm
from ngpt_lab.analysis.settings import settings_that_differ_within
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.tuning import chosen_inside

CLIPPED_SHARE_APART = 0.2
PARAMETERS_APART_PERCENT = 0.5
_SAME_FOR_ALL = {
    "data": "data",
    "device": "device",
    "versions": "software versions",
    "commit": "commit",
    "diff": "uncommitted changes",
}


def cautions(comparison: Comparison, arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each thing that makes the comparison less fair or less complete; `arms` as in the summary."""
    found = [_left_out(comparison)]
    for candidate in comparison.candidates:
        found += [
            _parameters(candidate, comparison.baseline, arms),
            _clipping(candidate, comparison.baseline, arms),
            _seeds(candidate, comparison.baseline, arms),
        ]
    found += [_untuned(arms)] if comparison.candidates else []
    found += [_within(comparison, arm) for arm in comparison.arms]
    found += [_not_the_same(comparison, key, name) for key, name in _SAME_FOR_ALL.items()]
    return [sentence for sentence in found if sentence]


def _left_out(comparison: Comparison) -> str | None:
    count = len(comparison.unused)
    return f"{count} run(s) are not finished or not usable and were left out; they are listed below." if count else None


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
    told = " ".join(f"{arm}: {text}." for arm, text in status.items())
    return f"Part of any difference may come from how the settings were chosen. {told}"


def _within(comparison: Comparison, arm: str) -> str | None:
    keys = settings_that_differ_within(comparison.runs, arm)
    return f"Runs of {arm} at the same budget differ among themselves in {', '.join(keys)}." if keys else None


def _not_the_same(comparison: Comparison, key: str, name: str) -> str | None:
    full = [run for arm in comparison.arms for run in at_full_budget(of_arm(comparison.runs, arm))]
    same = len({repr(_without_seeds(run.record.get(key))) for run in full}) == 1
    return None if same else f"Not every run has the same {name}."


def _without_seeds(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if not key.endswith("seed")}
