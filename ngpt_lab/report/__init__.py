"""Runs, comparisons and sweeps -> report.html, with figures, tables and summary.json beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ngpt_lab.analysis.figures import png, svg
from ngpt_lab.files import write_atomically
from ngpt_lab.report.ablations import effects, most_telling
from ngpt_lab.report.captions import CAPTIONS
from ngpt_lab.report.comparison import Comparison, compare
from ngpt_lab.report.html import Section, render_page
from ngpt_lab.report.inside import Inside, look_inside
from ngpt_lab.report.plates import Plate, draw_plates, draw_search
from ngpt_lab.report.sources import Collection, collect_runs, is_planned
from ngpt_lab.report.summary import build_summary
from ngpt_lab.report.tables import write_tables

__all__ = ["PAGE", "collect_runs", "is_planned", "write_report"]

PAGE = "report.html"
FIGURES = "figures"
_ELSEWHERE = "What is inside the models is shown under the first condition only."


def write_report(folder: Path, collection: Collection | None = None, *, baseline: str | None = None, command: str = "") -> Path:
    """Write summary.json, figures/, tables/ and report.html into `folder`; returns the page's path.

    Without `collection` the folder is one that `ngpt-lab compare` or `ngpt-lab sweep` made; with it (see `collect_runs`)
    any folder. `baseline` names the arm to compare with.

    Raises:
        InputError: nothing that can be compared, or a file that cannot be read.
    """
    found = collect_runs([folder]) if collection is None else collection
    return _write(folder, compare(found, folder, baseline, command))


def _write(folder: Path, comparison: Comparison) -> Path:
    table = effects(comparison)
    summary = build_summary(comparison, table)
    drawn: list[Plate] = []

    def saved(plates: Sequence[Plate]) -> list[tuple[Plate, bytes]]:
        drawn.extend(plates)
        return [(plate, _save(folder, plate)) for plate in plates]

    sections: list[Section] = []
    for condition, numbers in zip(comparison.conditions, summary["conditions"], strict=True):
        inside = look_inside(condition, most_telling(condition, table)) if not sections else Inside(_ELSEWHERE)
        plates = saved(draw_plates(condition, comparison.metric, table, inside))
        search = saved(draw_search(condition, comparison.searched))
        sections.append(Section(numbers, plates, inside.note, search))
    _drop_others(folder / FIGURES, {plate.path for plate in drawn})
    write_tables(comparison, folder)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_atomically(folder / PAGE, render_page(summary, comparison, sections))
    return folder / PAGE


def _save(folder: Path, plate: Plate) -> bytes:
    """Write the figure as PNG and SVG; the bytes of the PNG."""
    image = png(plate.figure)
    write_atomically(folder / FIGURES / f"{plate.path}.png", image)
    write_atomically(folder / FIGURES / f"{plate.path}.svg", svg(plate.figure))
    return image


def _drop_others(folder: Path, paths: set[str]) -> None:
    """Remove an earlier report's figures that no longer hold."""
    for path in folder.rglob("*"):
        ours = path.stem in CAPTIONS and path.suffix in (".png", ".svg")
        if ours and path.relative_to(folder).with_suffix("").as_posix() not in paths:
            path.unlink(missing_ok=True)
