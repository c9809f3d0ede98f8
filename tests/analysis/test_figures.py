import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from ngpt_lab.analysis import figures
from ngpt_lab.analysis.equal_loss import tokens_to_equal_loss
from ngpt_lab.analysis.figures.style import arm_styles, folded
from ngpt_lab.analysis.frames import final_losses
from ngpt_lab.analysis.runs import Run, load_run

WriteRun = Callable[..., Path]
ARMS = ("nemotron", "ngpt")
INSIDE = (
    figures.eigen_rates_by_layer,
    figures.eigen_rates_over_time,
    figures.scales_over_time,
    figures.norm_error,
    figures.clipped_share,
)


@pytest.fixture
def runs(tmp_path: Path, write_run: WriteRun) -> list[Run]:
    return [
        load_run(write_run(tmp_path / f"{arm}-{budget}-s{seed}", arm, budget, seed, 2 - budget / 1e6 + seed / 100))
        for arm in ARMS
        for budget in (409_600, 819_200)
        for seed in (1, 2, 3)
    ]


def labels(figure: Figure) -> set[str]:
    return {text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]}


@pytest.mark.parametrize("draw", INSIDE)
def test_what_was_not_logged_is_not_drawn(draw: Callable, runs: list[Run], tmp_path: Path, write_run: WriteRun) -> None:
    bare = write_run(tmp_path / "bare")
    (bare / "metrics.jsonl").write_text('{"step": 1, "tokens": 2048, "train/loss": 5.5}\n')
    assert draw([load_run(bare)], ["NGPT"]) is None
    assert draw(runs, ARMS) is not None


@pytest.mark.parametrize("draw", [*INSIDE, figures.loss_curves])
def test_arms_without_runs_leave_no_empty_panel(draw: Callable, runs: list[Run]) -> None:
    assert draw(runs, ["another"]) is None
    assert figures.final_loss(final_losses(runs), ["another"]) is None


def test_only_the_arm_with_eigen_rates_is_drawn(runs: list[Run]) -> None:
    figure = figures.eigen_rates_by_layer(runs, ARMS)
    assert figure is not None
    assert labels(figure) == {"ngpt"}


def test_an_arm_has_one_colour_in_every_figure(runs: list[Run]) -> None:
    def colour(figure: Figure | None) -> set[str]:
        assert figure is not None
        found = [line for axes in figure.axes for line in axes.lines if line.get_label() == "ngpt"]
        return {str(line.get_color()) for line in found}

    drawn = [figures.eigen_rates_by_layer(runs, ARMS), figures.norm_error(runs, ARMS), figures.loss_curves(runs, ARMS)]
    assert len(set.union(*map(colour, drawn))) == 1


def test_every_finished_run_is_a_dot(runs: list[Run]) -> None:
    figure = figures.final_loss(final_losses(runs), ARMS)
    assert figure is not None
    dots = [line for line in figure.axes[0].lines if line.get_label() in ARMS]
    assert sum(len(line.get_xdata()) for line in dots) == len(runs)


def test_the_zero_line_is_in_view_of_the_differences(runs: list[Run]) -> None:
    figure = figures.paired_differences(final_losses(runs), ARMS)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < high


def test_a_speed_up_that_is_not_claimed_is_not_drawn() -> None:
    assert figures.tokens_to_equal_loss({"ngpt": tokens_to_equal_loss({}, {})}, ARMS) is None


def test_the_ratio_panel_shows_the_median_over_rounds() -> None:
    figure = figures.step_cost({"nemotron": [1.0, 2.0, 4.0], "ngpt": [1.2, 2.6, 5.6]}, ARMS, "seconds per step")
    assert figure is not None
    assert any(np.allclose(line.get_ydata(), 1.3) for line in figure.axes[1].lines)


@pytest.mark.parametrize("image", [figures.png, figures.svg])
def test_the_same_figure_gives_the_same_bytes(image: Callable[[Figure], bytes], runs: list[Run]) -> None:
    first, second = (figures.clipped_share(runs, ARMS) for _ in range(2))
    assert first is not None
    assert second is not None
    assert image(first) == image(second) == image(first)


def test_an_svg_holds_its_text_and_names_a_font_that_is_everywhere(runs: list[Run]) -> None:
    figure = figures.norm_error(runs, ARMS)
    assert figure is not None
    text = figures.svg(figure).decode()
    assert ">tokens trained</text>" in text
    assert "date" not in text
    fonts = re.findall(r"font-family: ([^;\"]*)", text)
    assert fonts
    assert all(font.endswith("sans-serif") for font in fonts)
    assert all(entry.tag for entry in ElementTree.fromstring(text).iter())


def test_forty_arms_differ_in_colour_or_marker_and_neighbours_in_both() -> None:
    styles = list(arm_styles([f"arm-{number}" for number in range(40)]).values())
    assert len({(style.colour, style.marker) for style in styles}) == 40
    assert all(one.colour != other.colour and one.marker != other.marker for one, other in pairwise(styles))


NAMES = {
    "long": [f"ngpt-1m-{'+'.join(['scalar_s_qk', 'scalar_s_u', 'fixed_norm'] * 5)}-{place}" for place in range(3)],
    "without a break": ["x" * 150, "y" * 150],
    "many": [f"ngpt-1m-ablation-{place}" for place in range(40)],
    "with signs of markup": ["$a$ <b> & $\\frac{", "a_c^2 'd' \"e\""],
}


@pytest.mark.parametrize("arms", NAMES.values(), ids=NAMES)
def test_names_of_arms_stay_inside_the_figure(arms: list[str]) -> None:
    finals = pd.DataFrame([(arm, seed, 1000, 2.0 + seed) for arm in arms for seed in (1, 2)])
    finals.columns = pd.Index(["arm", "seed", "budget", "val/bits_per_byte"])
    for figure in (figures.final_loss(finals, arms), figures.loss_by_budget(finals, arms, "val/bits_per_byte")):
        assert figure is not None
        figure.draw_without_rendering()
        shown = [*figure.legends, *(found for axes in figure.axes if (found := axes.get_legend()))]
        assert len(shown) == 1
        assert len(shown[0].get_texts()) == len(arms)
        box, page = shown[0].get_window_extent(), figure.bbox
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
        assert figure.axes[0].get_window_extent().height > 100


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=120), st.integers(2, 60))
def test_a_folded_name_loses_no_letter(name: str, width: int) -> None:
    lines = folded(name, width).splitlines()
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(len(line) <= width for line in lines)
