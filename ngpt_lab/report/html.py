"""Summary and figures -> one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ngpt_lab.report.claim import short
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.plates import Plate

_LONGEST_VALUE = 90


def render_page(summary: Mapping[str, Any], comparison: Comparison, plates: Sequence[tuple[Plate, bytes]]) -> str:
    """The page: claim, tables, figures (PNG bytes, embedded), then how it was run."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"short": short, "number": number, "signed": signed, "value": clipped_value, "pm": pm}
    template = environment.from_string(files("ngpt_lab.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(
        title=_title(comparison),
        summary=summary,
        measures={row["measure"]: (row["split"], row["unit"]) for row in summary["finished"]},
        finished={(row["budget"], row["measure"]): row for row in summary["finished"]},
        plates=[(plate, base64.b64encode(image).decode("ascii")) for plate, image in plates],
        run=comparison.runs[0].record,
        runs=comparison.runs,
        command=comparison.command,
    )


def _title(comparison: Comparison) -> str:
    if not comparison.candidates:
        return f"Runs of {comparison.baseline}"
    return f"{', '.join(comparison.candidates)} against {comparison.baseline}"


def number(value: float | None, digits: int = 4) -> str:
    """Fixed digits, a dash for what is not known."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Fixed digits with the sign, a dash for what is not known."""
    return "-" if value is None else f"{value:+.{digits}f}"


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


def pm(text: str) -> str:
    """The typographic plus-minus of an ASCII '+-'."""
    return text.replace("+-", "\N{PLUS-MINUS SIGN}").replace(">=", "\N{GREATER-THAN OR EQUAL TO}")
