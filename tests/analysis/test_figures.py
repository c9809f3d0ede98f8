from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ngpt_lab.analysis import figures
from ngpt_lab.analysis.frames import final_losses
from ngpt_lab.analysis.runs import Run, load_run
from ngpt_lab.analysis.statistics import tokens_to_equal_loss

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


def test_the_same_figure_gives_the_same_bytes(runs: list[Run]) -> None:
    first, second = (figures.clipped_share(runs, ARMS) for _ in range(2))
    assert first is not None
    assert second is not None
    assert figures.png(first) == figures.png(second)
