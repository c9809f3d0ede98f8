"""Every number of a report as one dict, the content of summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import pandas as pd

from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.cost import sources, spent
from ngpt_lab.report.measures import ALL_MEASURES
from ngpt_lab.report.readings import read_condition


def build_summary(comparison: Comparison, effects: pd.DataFrame) -> dict[str, Any]:
    """The content of summary.json: plain JSON types, null for what is not known; `effects` from `ablations.effects`."""
    conditions = [read_condition(condition, comparison, effects) for condition in comparison.conditions]
    split, unit = ALL_MEASURES[comparison.metric]
    count = len(comparison.unused)
    summary = {
        "questions": comparison.collection.questions,
        "claim": "\n".join(line for condition in conditions for line in _lines(condition)),
        "baseline": comparison.baseline,
        "metric": {"name": comparison.metric, "split": split, "unit": unit},
        "arms": comparison.arms,
        "conditions": conditions,
        "warnings": [f"{count} run(s) are not finished or not usable and were left out; they are listed below."]
        if count
        else [],
        "not_used": [{"name": one.name, "state": one.state, "reason": one.reason} for one in comparison.unused],
        "cost": spent(comparison),
        "sources": sources(comparison),
    }
    plain: dict[str, Any] = _plain(summary)
    return plain


def _lines(condition: Mapping[str, Any]) -> list[str]:
    claims = [f"{claim['verdict']} {claim['sentence']}".strip() for claim in condition["claims"].values()]
    lines = [*filter(None, [condition["overview"]]), *claims]
    return [f"{condition['condition']}: {line}" for line in lines] if condition["condition"] else lines


def _plain(value: Any) -> Any:
    """The same content in JSON's types; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return _number(value)


def _number(value: Any) -> float | int | str | None:
    try:
        number = value.item() if hasattr(value, "item") else float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if isfinite(number) else None
