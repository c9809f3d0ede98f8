"""step_cost.json: the interleaved measurement of a step, one for each condition of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.columns import cell
from ngpt_lab.analysis.runs import read_json
from ngpt_lab.errors import InputError

STEP_COST = "step_cost.json"
Seconds = Mapping[str, Mapping[str, Sequence[float]]]
"""Condition, as the rows of the results name it -> arm -> seconds a step, one for every round."""


def read_step_costs(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The interleaved measurements of a step, one for each condition; empty where there are none.

    Raises:
        InputError: the file does not hold the seconds of every arm.
    """
    if not path.exists():
        return ()
    content = read_json(path)
    measured = content["conditions"] if isinstance(content.get("conditions"), list) else [content]
    for one in measured:
        try:
            rounds = {len([float(second) for second in arm["seconds"]]) for arm in one["arms"].values()}
        except (KeyError, TypeError, AttributeError, ValueError):
            rounds = set()
        if len(rounds) != 1 or 0 in rounds or not isinstance(one.get("condition", {}), dict):
            raise InputError(f"{path} needs the seconds of the same number of rounds for every arm: measure again.")
    return tuple(measured)


def seconds_by_condition(measured: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Seconds:
    """The seconds of each condition that rows name and that was measured; one of each belong together whatever its name."""
    names = list(dict.fromkeys(names))
    if len(names) == len(measured) == 1:
        return {names[0]: _seconds(measured[0])}
    found = ((name, [one for one in measured if _names(one.get("condition", {}), name)]) for name in names)
    return {name: _seconds(own[0]) for name, own in found if own}


def _seconds(measured: Mapping[str, Any]) -> dict[str, list[float]]:
    return {arm: told["seconds"] for arm, told in measured["arms"].items()}


def _names(condition: Mapping[str, Any], name: str) -> bool:
    """Whether a row means this condition: how much of a key it names depends on what else the sweep varies."""
    parts = [f"(?:{'|'.join(_ends(key))})={re.escape(cell(value))}" for key, value in condition.items()]
    return re.fullmatch("; ".join(parts), name) is not None


def _ends(key: str) -> list[str]:
    parts = [part for part in key.split(".") if part != "init_args"]
    return [re.escape(".".join(parts[start:])) for start in range(len(parts))]
