"""A folder of runs -> report.html, its figures and summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ngpt_lab.analysis.figures import png
from ngpt_lab.analysis.runs import Run
from ngpt_lab.files import write_atomically
from ngpt_lab.report.comparison import Comparison, collect_runs, compare_loose, is_comparison, read_comparison
from ngpt_lab.report.html import render_page
from ngpt_lab.report.plates import CAPTIONS, draw_plates
from ngpt_lab.report.summary import build_summary

__all__ = ["PAGE", "collect_runs", "is_comparison", "write_report"]

PAGE = "report.html"


def write_report(folder: Path, runs: Sequence[Run] | None = None, *, baseline: str | None = None, command: str = "") -> Path:
    """Write summary.json, figures/*.png and report.html into `folder`; returns the page's path.

    Without `runs` the folder is one that `ngpt-lab compare` made; with them (see `collect_runs`) any folder, and
    `baseline` names the arm to compare with.
    """
    if runs is None:
        return _write(folder, read_comparison(folder))
    return _write(folder, compare_loose(folder, runs, baseline, command))


def _write(folder: Path, comparison: Comparison) -> Path:
    summary = build_summary(comparison)
    plates = [(plate, png(plate.figure)) for plate in draw_plates(comparison)]
    drawn = {plate.name for plate, _ in plates}
    for name in CAPTIONS.keys() - drawn:
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    for plate, image in plates:
        write_atomically(folder / "figures" / f"{plate.name}.png", image)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_atomically(folder / PAGE, render_page(summary, comparison, plates))
    return folder / PAGE
