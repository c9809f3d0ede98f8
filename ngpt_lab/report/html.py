"""Summary and figures -> one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ngpt_lab.analysis.wording import duration
from ngpt_lab.report.claim import short
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.plates import Plate

_LONGEST_VALUE = 90
_ARMS_IN_TITLE = 3
_ARMS_IN_COLUMNS = 5
Drawn = Sequence[tuple[Plate, bytes]]
"""Figures with their PNG bytes."""


@dataclass(frozen=True, eq=False)
class Section:
    """What the page shows of one condition: its part of the summary, its figures, a note on the models' inside, its search."""

    numbers: Mapping[str, Any]
    plates: Drawn
    inside: str
    search: Drawn

    @property
    def measures(self) -> dict[str, tuple[str, str]]:
        """Measure -> split and unit, of those that runs have."""
        return {row["measure"]: (row["split"], row["unit"]) for row in self.numbers["finished"]}

    @property
    def finished(self) -> dict[tuple[int, str], Mapping[str, Any]]:
        """Budget and measure -> levels and differences."""
        return {(row["budget"], row["measure"]): row for row in self.numbers["finished"]}


def render_page(summary: Mapping[str, Any], comparison: Comparison, sections: Sequence[Section]) -> str:
    """The page: claims, then tables, figures and search of each condition, and how it was run."""
    environment = Environment(
        loader=PackageLoader("ngpt_lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short,
        "number": number,
        "signed": signed,
        "probability": probability,
        "power": power,
        "duration": duration,
        "value": clipped_value,
        "arms_by_value": arms_by_value,
        "pm": pm,
    }
    return environment.get_template("page.html").render(
        title=_title(comparison),
        summary=summary,
        sections=[Section(one.numbers, _embedded(one.plates), one.inside, _embedded(one.search)) for one in sections],
        several=len(sections) > 1,
        most_claims=_ARMS_IN_TITLE,
        most_columns=_ARMS_IN_COLUMNS,
        runs=comparison.runs,
        command=comparison.command,
        specification=comparison.collection.specification,
    )


def _embedded(plates: Drawn) -> Any:
    return [(plate, base64.b64encode(image).decode("ascii")) for plate, image in plates]


def _title(comparison: Comparison) -> str:
    candidates = [arm for arm in comparison.arms if arm != comparison.baseline]
    if not candidates:
        return f"Runs of {comparison.baseline}"
    named = ", ".join(candidates) if len(candidates) <= _ARMS_IN_TITLE else f"{len(candidates)} arms"
    return f"{named} against {comparison.baseline}"


def number(value: float | None, digits: int = 4) -> str:
    """Fixed digits, a dash for what is not known."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Fixed digits with the sign, a dash for what is not known."""
    return "-" if value is None else f"{value:+.{digits}f}"


def probability(value: float | None) -> str:
    """Four digits, or that it is smaller than those can say."""
    return "-" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"


def power(value: float) -> str:
    """Three digits and a power of ten."""
    return "-" if value == 0 else f"{value:.2e}"


def clipped_value(value: object) -> str:
    """Any recorded value as short text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {clipped_value(item)}" for key, item in value.items())
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def arms_by_value(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Arm -> value, turned round: each value with the names of its arms, the commonest first and without names."""
    owners: dict[str, list[str]] = {}
    for arm, value in values.items():
        owners.setdefault(clipped_value(value), []).append(arm)
    first, *others = sorted(owners, key=lambda text: -len(owners[text]))
    return [(first, f"the other {len(owners[first])}"), *((text, ", ".join(owners[text])) for text in others)]


def pm(text: str) -> str:
    """The typographic plus-minus of an ASCII '+-'."""
    return text.replace("+-", "\N{PLUS-MINUS SIGN}").replace(">=", "\N{GREATER-THAN OR EQUAL TO}")
