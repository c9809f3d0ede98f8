import base64
import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from ngpt_lab.report import collect_runs, write_report
from ngpt_lab.report.ablations import effects
from ngpt_lab.report.comparison import compare
from ngpt_lab.report.plates import draw_plates

Write = Callable[..., Path]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary with the numbers of its only condition."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    [only] = summary["conditions"]
    return summary | only | {"warnings": summary["warnings"] + only["warnings"]}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, write_comparison: Write) -> Path:
    """A comparison with the planted truth and its report; tests only read it."""
    folder = write_comparison(tmp_path_factory.mktemp("reported"))
    assert write_report(folder) == folder / "report.html"
    return folder


def test_the_planted_truth_is_found_and_said(reported: Path) -> None:
    summary = read_summary(reported)
    tokens, time = summary["tokens_to_equal_loss"]["ngpt"], summary["time_to_equal_loss"]["ngpt"]
    assert tokens["low"] < 1.5 < tokens["high"]
    assert tokens["ratio"] == pytest.approx(1.5, rel=0.05)
    assert time["value"] == pytest.approx(tokens["ratio"] / 1.25)
    assert summary["claims"]["ngpt"]["verdict"].startswith("ngpt has the lower test loss")
    assert summary["arms"]["ngpt"]["parameters_percent"] == pytest.approx(100 * 2 / 854)
    assert (summary["budgets"], summary["baseline"], summary["candidates"]) == (
        [204_800, 409_600, 819_200],
        "nemotron",
        ["ngpt"],
    )


def test_the_claim_is_true_to_the_summary(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    summary = read_summary(reported)
    row = next(r for r in summary["finished"] if (r["budget"], r["measure"]) == (819_200, "test/bits_per_byte"))
    seeds = {arm: level["seeds"] for arm, level in row["arms"].items()}
    by_hand = np.mean([seeds["ngpt"][seed] - seeds["nemotron"][seed] for seed in ("1", "2", "3")])
    stated = re.search(r"ngpt - nemotron = (\S+) \u00b1 (\S+) bits per byte \(paired, 3 seeds\)", page)
    cost = re.search(r"a step costs (\S+) times", page)
    assert stated is not None
    assert cost is not None
    assert float(stated[1]) == round(row["differences"]["ngpt"]["mean"], 4) == pytest.approx(by_hand, abs=1e-4)
    assert float(stated[2]) == round(row["differences"]["ngpt"]["half_width"], 4)
    assert float(cost[1]) == round(summary["step_cost"]["ratios"]["ngpt"]["value"], 2)


def test_the_page_needs_nothing_beside_it(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    assert "://" not in page
    assert not re.search(r"<(script|link|iframe|object|embed)|@import|url\(", page)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == page.count("<img") > 9
    files = {path.read_bytes() for path in (reported / "figures").glob("*.png")}
    assert {base64.b64decode(image) for image in images} == files


def test_every_figure_is_there_as_a_drawing_too(reported: Path) -> None:
    drawings = {path.stem: ElementTree.parse(path).getroot().tag for path in (reported / "figures").glob("*.svg")}
    assert drawings.keys() == {path.stem for path in (reported / "figures").glob("*.png")}
    assert set(drawings.values()) == {"{http://www.w3.org/2000/svg}svg"}


def test_the_tables_are_there_as_text(reported: Path) -> None:
    table = (reported / "tables" / "ablations.md").read_text()
    summary = read_summary(reported)
    assert f"{summary['effects']['ngpt']['effect']:+.4f}" in table
    assert "\\toprule" in (reported / "tables" / "equal_loss.tex").read_text()


def test_no_panel_is_empty(tmp_path: Path, write_comparison: Write) -> None:
    folder = write_comparison(tmp_path, arms=("ngpt", "nemotron", "other"))
    comparison = compare(collect_runs([folder]), folder)
    plates = draw_plates(comparison.conditions[0], comparison.metric, effects(comparison))
    assert len(plates) > 9
    for plate in plates:
        for axes in plate.figure.axes:
            drawn = [line for line in axes.lines if np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any()]
            assert drawn, plate.path
            assert axes.get_xlabel() or plate.path == "speed-ups", plate.path
            assert axes.get_ylabel() or plate.path in ("effects", "tokens-to-equal-loss", "speed-ups")


def test_every_picture_has_ink(reported: Path) -> None:
    for path in (reported / "figures").glob("*.png"):
        pixels = imread(BytesIO(path.read_bytes()))[..., :3]
        assert (pixels.min(axis=-1) < 0.5).mean() > 0.003, path.name


def test_a_report_written_again_drops_figures_that_no_longer_hold(tmp_path: Path, write_comparison: Write) -> None:
    write_report(write_comparison(tmp_path))
    (tmp_path / "step_cost.json").unlink()
    page = write_report(tmp_path).read_text()
    assert not (tmp_path / "figures" / "step-cost.png").exists()
    assert "the cost of a step was not measured" in page
