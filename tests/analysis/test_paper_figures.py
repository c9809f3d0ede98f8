"""Every figure over frames made by hand: panels, series, labels and drawn points."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ngpt_lab.analysis import figures

ARMS = ["nemotron", "ngpt"]
SEEDS = (1, 2, 3)
BUDGETS = (1000, 2000, 4000)
LAYERS = range(3)
KINDS = ("query", "key", "value", "mlp_up", "mlp_down")


def frame(*names: str, **columns: Any) -> pd.DataFrame:
    """All combinations of the columns, with a number of its own under each name."""
    rows = pd.MultiIndex.from_product(list(columns.values()), names=list(columns)).to_frame(index=False)
    for place, name in enumerate(names):
        rows[name] = 1.5 + place + np.sin(np.arange(len(rows)) * (place + 1.3)) ** 2
    return rows


BOTH: dict[str, Any] = {"arm": ARMS, "seed": SEEDS}
FRAMES = {
    "history": frame("value", **BOTH, budget=BUDGETS[:2], tokens=(250, 500, 750, 1000)),
    "finals": frame("val/loss", **BOTH, budget=BUDGETS, condition=["seq_len=64", "seq_len=128"]).assign(
        tokens=lambda rows: rows["budget"], seconds_per_token=1e-3, flops_per_token=5e6
    ),
    "trials": frame("val_loss", **BOTH, budget=BUDGETS[:2], lr=(0.001, 0.002, 0.004)),
    "norms": frame("norm", **BOTH, kind=["input_embedding", "output_embedding"], layer=[-1], rank=(0, 0.5, 1)),
    "eigenvalues": frame("value", **BOTH, kind=["input_embedding", "output_embedding"], rank=(0, 0.5, 1)),
    "dots": frame("value", **BOTH, kind=["input_embedding", "output_embedding"], pair=range(30)),
    "conditions": frame("condition", **BOTH, kind=KINDS, layer=LAYERS, head=range(3)),
    "vectors": frame("norm", **BOTH, kind=["query", "key"], layer=LAYERS, rank=(0, 0.5, 1)),
    "singular": frame("value", **BOTH, kind=["query", "key"], layer=LAYERS, head=range(2), rank=(0, 0.5, 1)),
    "scales": frame(
        "value", **BOTH, step=(0, 10), scale=["attention_alpha", "mlp_alpha", "s_qk", "s_u"], layer=LAYERS, channel=range(8)
    ),
    "path": frame("angle", **BOTH, layer=LAYERS, sublayer=["attention", "mlp"]),
    "gap": frame("alpha", "angle_lerp", "angle_slerp", **BOTH, layer=LAYERS, sublayer=["attention", "mlp"]),
    "entropy": frame("entropy", **BOTH, layer=LAYERS, head=range(4)).assign(uniform=4.5),
    "lengths": frame("perplexity", **BOTH, length=(64, 128, 256), trained_length=(64, 128)),
    "changes": frame("change", **BOTH, length=(64, 128, 256), trained_length=(64, 128)).assign(
        low=lambda rows: rows["change"] - 0.1, high=lambda rows: rows["change"] + 0.2
    ),
    "turned": frame("angle", "total", **BOTH, kind=["query", "mlp_up"], layer=LAYERS, step=(10, 20)).assign(
        matrix=lambda rows: rows["kind"] + rows["layer"].astype(str), tokens=lambda rows: rows["step"] * 100
    ),
    "effects": frame("effect", arm=[f"arm-{number}" for number in range(5)]).assign(
        low=lambda rows: rows["effect"] - 0.1, high=lambda rows: rows["effect"] + 0.1, significant=[True, False] * 2 + [True]
    ),
    "ratios": frame("ratio", arm=["ngpt", "slerp"], effort=["tokens", "FLOPs", "seconds"]).assign(low=1.2, high=3.0),
}


def _effects(rows: pd.DataFrame) -> Figure | None:
    return figures.ablation_effects(rows, "ngpt")


def _speed_ups(rows: pd.DataFrame) -> Figure | None:
    return figures.speed_ups(rows, "nemotron")


def _spectra(vectors: pd.DataFrame, singular: pd.DataFrame) -> Figure | None:
    return figures.query_key_spectra(vectors, singular, layer=1)


DRAWN = [
    (figures.validation_during_training, ["history"], 1, "tokens trained", "validation loss (nats per token)"),
    (figures.loss_by_budget, ["finals"], 2, "tokens trained", "final validation loss (nats per token)"),
    (figures.loss_by_effort, ["finals"], 3, "FLOPs of training", "final validation loss (nats per token)"),
    (figures.learning_rate_curves, ["trials"], 2, "learning rate", "validation loss (nats per token)"),
    (figures.tuning_curves, ["trials"], 2, "lr", "validation loss (nats per token)"),
    (figures.embedding_geometry, ["norms", "eigenvalues", "dots"], 6, "normalised rank", "norm of a vector"),
    (figures.condition_numbers, ["conditions"], 5, "layer (0 first, 1 last)", "condition number\n(median over heads)"),
    (_spectra, ["vectors", "singular"], 4, "normalised rank", "singular value, a line a head"),
    (figures.scales_by_layer, ["scales"], 4, "layer (0 first, 1 last)", "mean |alpha_A|"),
    (figures.scale_histograms, ["scales"], 4, "alpha_A", "density of channels"),
    (figures.alpha_over_training, ["scales"], 7, "", "attention"),
    (figures.stream_path, ["path"], 2, "layer (0 is the first)", "turn of the stream (degrees)"),
    (figures.lerp_slerp_gap, ["gap"], 3, "alpha (mean over channels)", "SLERP - LERP (degrees)"),
    (figures.attention_entropy, ["entropy"], 1, "layer (0 is the first)", "entropy of attention (nats)"),
    (figures.perplexity_by_length, ["lengths"], 2, "length of the text (tokens)", "perplexity"),
    (figures.loss_change_by_length, ["changes"], 2, "length of the text (tokens)", "change of the loss (nats per token)"),
    (figures.weight_rotation, ["turned"], 6, "tokens trained", "turn per step (degrees)"),
    (_effects, ["effects"], 1, "difference to ngpt (bits per byte)", ""),
    (_speed_ups, ["ratios"], 3, "", ""),
]
DRAW = [pytest.param(draw, [FRAMES[name] for name in names], id=draw.__name__.strip("_")) for draw, names, *_ in DRAWN]


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def labelled(figure: Figure, label: str, panel: int = 0) -> Line2D:
    [line] = [line for line in figure.axes[panel].lines if line.get_label() == label]
    return line


def points(line: Line2D) -> list[tuple[float, float]]:
    return list(zip(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), strict=True))


def stars(figure: Figure) -> list[Line2D]:
    return [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]


@pytest.mark.parametrize(("draw", "names", "panels", "x", "y"), DRAWN)
def test_a_figure_has_its_panels_and_labels(
    draw: Callable[..., Figure | None], names: list[str], panels: int, x: str, y: str
) -> None:
    figure = drawn(draw(*(FRAMES[name] for name in names)))
    assert len(figure.axes) == panels
    assert x in {axes.get_xlabel() for axes in figure.axes}
    assert y in {axes.get_ylabel() for axes in figure.axes}
    assert all(axes.lines or axes.collections for axes in figure.axes)


@pytest.mark.parametrize(("draw", "frames"), DRAW)
def test_nothing_is_drawn_from_nothing(draw: Callable[..., Figure | None], frames: list[pd.DataFrame]) -> None:
    assert draw(*(pd.DataFrame() for _ in frames)) is None
    assert draw(*(rows.iloc[:0] for rows in frames)) is None


@pytest.mark.parametrize(("draw", "frames"), DRAW)
def test_rows_that_are_no_numbers_change_nothing_else(draw: Callable[..., Figure | None], frames: list[pd.DataFrame]) -> None:
    spoilt = [pd.concat([rows, *(_spoilt(rows, value) for value in (np.nan, np.inf, -np.inf))]) for rows in frames]
    whole, holed = drawn(draw(*frames)), drawn(draw(*spoilt))
    assert [axes.get_ylim() for axes in whole.axes] == [axes.get_ylim() for axes in holed.axes]
    assert np.isfinite([axes.get_xlim() + axes.get_ylim() for axes in holed.axes]).all()


def _spoilt(rows: pd.DataFrame, value: float) -> pd.DataFrame:
    """Rows again, in which the numbers that were measured are `value`."""
    measured = [name for name in ("value", "val/loss", "val_loss", "norm", "condition", "angle", "angle_lerp") if name in rows]
    measured += [name for name in ("entropy", "perplexity", "effect", "ratio") if name in rows]
    # A diverged trial counts as one at every rate, so only a loss of its own rate is spoilt.
    again = rows.assign(lr=9.0) if "lr" in rows else rows
    return again.head(3).assign(**dict.fromkeys(measured, value))


@pytest.mark.parametrize("draw", [figures.stream_path, figures.attention_entropy])
def test_only_arms_that_are_asked_for_are_drawn_in_their_own_colour(draw: Callable[..., Figure | None]) -> None:
    rows = FRAMES["path" if draw is figures.stream_path else "entropy"]
    both, one = drawn(draw(rows, ARMS)), drawn(draw(rows[rows["arm"] == "ngpt"], ARMS))
    assert labelled(both, "ngpt").get_color() == labelled(one, "ngpt").get_color()
    assert draw(rows, ["another"]) is None


def test_fig_1_ends_where_the_runs_end() -> None:
    rows = FRAMES["history"]
    figure = drawn(figures.validation_during_training(rows))
    own = rows[(rows["arm"] == "ngpt") & (rows["budget"] == 1000)].groupby("tokens")["value"].mean()
    line = labelled(figure, "ngpt, 1k tokens")
    assert np.asarray(points(line)) == pytest.approx(own.reset_index().to_numpy())
    assert line.get_markevery() == [len(own) - 1]
    assert line.get_color() != labelled(figure, "ngpt, 2k tokens").get_color()


def test_fig_2_shows_every_run_once() -> None:
    rows = FRAMES["finals"]
    figure = drawn(figures.loss_by_budget(rows))
    for axes, condition in zip(figure.axes, ("seq_len=64", "seq_len=128"), strict=True):
        dots = [
            y for line in axes.lines if line.get_linestyle() == "None" for y in line.get_ydata() if len(line.get_ydata()) == 9
        ]
        assert sorted(dots) == sorted(rows[rows["condition"] == condition]["val/loss"])
        assert axes.get_title(loc="left") == condition


def test_fig_7_tells_an_optimum_at_the_edge_from_one_inside() -> None:
    rates = [0.001, 0.002, 0.004, 0.008]
    trials = pd.DataFrame({"arm": "ngpt", "seed": 1, "budget": 1000, "lr": rates, "val_loss": [2.0, 1.0, 3.0, np.nan]})
    [inside] = stars(drawn(figures.learning_rate_curves(trials)))
    assert points(inside) == [(0.002, 1.0)]
    assert to_hex(inside.get_markerfacecolor()) != "#ffffff"
    [edge] = stars(drawn(figures.learning_rate_curves(trials.assign(val_loss=[1.0, 2.0, 3.0, np.nan]))))
    assert to_hex(edge.get_markerfacecolor()) == "#ffffff"


@pytest.mark.parametrize("draw", [figures.learning_rate_curves, figures.tuning_curves])
def test_a_trial_that_diverged_is_a_cross(draw: Callable[..., Figure | None]) -> None:
    trials = pd.DataFrame({"arm": "ngpt", "seed": 1, "budget": 1000, "lr": [0.1, 0.2, 0.4], "val_loss": [2.0, 1.0, np.inf]})
    figure = drawn(draw(trials))
    [cross] = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [0.4]
    assert "diverged" in {text.get_text() for text in figure.legends[0].get_texts()}
    assert draw(trials.assign(val_loss=np.nan)) is None


def test_tuning_has_a_panel_a_key_and_stars_what_was_chosen() -> None:
    trials = frame("val_loss", arm=ARMS, seed=[1], budget=[1000], **{"model.lr": (1.0, 2.0, 3.0), "model.decay": (0.0, 0.1)})
    trials["kind"] = "a"
    figure = drawn(figures.tuning_curves(trials))
    assert [axes.get_xlabel() for axes in figure.axes] == ["lr", "decay"]
    best = trials.loc[trials.groupby("arm")["val_loss"].idxmin()]
    assert {points(star)[0] for star in stars(figure)[:2]} == set(zip(best["model.lr"], best["val_loss"], strict=True))
    chosen = trials.assign(chosen=trials["model.lr"].eq(2.0) & trials["model.decay"].eq(0.1))
    assert {points(star)[0][0] for star in stars(drawn(figures.tuning_curves(chosen)))[:2]} == {2.0}


def test_fig_4_has_no_panel_without_rows() -> None:
    assert len(drawn(figures.embedding_geometry(FRAMES["norms"], pd.DataFrame(), FRAMES["dots"])).axes) == 4


@pytest.mark.parametrize("renormalised", [None, FRAMES["conditions"].assign(condition=7.0)])
def test_fig_5_and_10_show_the_median_over_heads(renormalised: pd.DataFrame | None) -> None:
    rows = FRAMES["conditions"]
    figure = drawn(figures.condition_numbers(rows, renormalised=renormalised))
    own = rows[(rows["arm"] == "ngpt") & (rows["kind"] == "query")]
    expected = own.groupby(["seed", "layer"])["condition"].median().groupby("layer").mean()
    assert list(labelled(figure, "ngpt").get_xdata()) == [0, 0.5, 1]
    assert list(labelled(figure, "ngpt").get_ydata()) == pytest.approx(list(expected))
    if renormalised is not None:
        dotted = labelled(figure, "ngpt, renormalised")
        assert dotted.get_linestyle() == ":"
        assert list(dotted.get_ydata()) == pytest.approx([7.0] * 3)


def test_fig_10_leaves_out_what_renormalising_does_not_change() -> None:
    rows = FRAMES["conditions"]
    after = rows.assign(condition=rows["condition"].where(rows["arm"] == "ngpt", 1.0))
    names = drawn(figures.condition_numbers(rows, renormalised=after)).axes[0].get_legend_handles_labels()[1]
    assert names == ["nemotron", "ngpt", "nemotron, renormalised"]


def test_a_kind_of_matrix_that_is_not_known_turns_too() -> None:
    figure = drawn(figures.weight_rotation(FRAMES["turned"].assign(kind="mlp_up+mlp_gate")))
    assert list(labelled(figure, "mlp up+mlp gate", 2).get_xdata()) == [0, 1, 2]


def test_fig_11_names_the_condition_number() -> None:
    rows = FRAMES["singular"].assign(value=lambda rows: np.where(rows["rank"] == 0, 8.0, 2.0))
    figure = drawn(figures.query_key_spectra(FRAMES["vectors"], rows, layer=1))
    assert "ngpt: condition 4" in figure.axes[1].get_legend_handles_labels()[1]
    assert figures.query_key_spectra(FRAMES["vectors"], rows, layer=9) is None


def test_fig_6_takes_the_last_step_and_the_size() -> None:
    rows = FRAMES["scales"].assign(value=lambda rows: -rows["value"] * (1 + rows["step"]))
    figure = drawn(figures.scales_by_layer(rows))
    own = rows[(rows["arm"] == "ngpt") & (rows["scale"] == "attention_alpha") & (rows["step"] == 10)]
    assert list(labelled(figure, "ngpt").get_ydata()) == pytest.approx(list(-own.groupby("layer")["value"].mean()))


def test_fig_14_parts_series_by_any_column_and_has_unit_area() -> None:
    rows = FRAMES["scales"].assign(condition=lambda rows: "seq_len=" + rows["seed"].astype(str))
    line = labelled(drawn(figures.scale_histograms(rows, by="condition")), "seq_len=2")
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1.0)


def test_a_scale_of_one_value_is_an_upright_line() -> None:
    figure = drawn(figures.scales_by_layer(FRAMES["scales"].assign(scale="s_z", layer=-1, value=20.0)))
    assert list(labelled(figure, "ngpt").get_xdata()) == [20.0, 20.0]


def test_alpha_is_sorted_by_its_final_value_and_one_run_only() -> None:
    rows = FRAMES["scales"]
    figure = drawn(figures.alpha_over_training(rows, arm="ngpt", seed=2))
    own = rows[(rows["arm"] == "ngpt") & (rows["seed"] == 2) & (rows["layer"] == 0) & (rows["scale"] == "attention_alpha")]
    table = own.pivot_table(index="channel", columns="step", values="value").sort_values(10)
    assert np.asarray(figure.axes[0].collections[0].get_array()) == pytest.approx(table.to_numpy())
    assert figures.alpha_over_training(rows[rows["step"] == 10]) is None


def test_the_gap_is_slerp_less_lerp() -> None:
    rows = FRAMES["gap"]
    last = drawn(figures.lerp_slerp_gap(rows)).axes[-1]
    gaps = [gap for line in last.lines if line.get_marker() not in ("None", "") for gap in line.get_ydata()]
    assert sorted(gaps) == pytest.approx(sorted(rows["angle_slerp"] - rows["angle_lerp"]))


def test_layers_of_models_of_unequal_depth_share_an_axis() -> None:
    rows = FRAMES["path"][lambda rows: (rows["arm"] == "ngpt") | (rows["layer"] < 2)]
    figure = drawn(figures.stream_path(rows))
    assert list(labelled(figure, "nemotron").get_xdata()) == [0, 1]
    assert list(labelled(figure, "ngpt").get_xdata()) == [0, 0.5, 1]


def test_fig_13_marks_the_training_length() -> None:
    figure = drawn(figures.perplexity_by_length(FRAMES["lengths"]))
    assert [labelled(figure, "trained length", panel).get_xdata()[0] for panel in (0, 1)] == [64, 128]


def test_a_change_with_length_has_its_interval_and_the_line_where_nothing_changes() -> None:
    rows = FRAMES["changes"]
    figure = drawn(figures.loss_change_by_length(rows[(rows["seed"] == SEEDS[0]) & (rows["trained_length"] == 64)]))
    bars = figure.axes[0].collections[0].get_segments()
    own = rows[(rows["seed"] == SEEDS[0]) & (rows["trained_length"] == 64) & (rows["arm"] == ARMS[0])]
    assert [(bar[0, 1], bar[1, 1]) for bar in bars] == [
        pytest.approx(ends) for ends in zip(own["low"], own["high"], strict=True)
    ]
    assert any(set(line.get_ydata()) == {0} for line in figure.axes[0].lines)


def test_rotation_per_step_divides_by_the_steps_since_the_row_before() -> None:
    rows = FRAMES["turned"].assign(angle=5.0, step=lambda rows: rows["step"].replace(20, 60))
    figure = drawn(figures.weight_rotation(rows))
    assert list(labelled(figure, "query").get_ydata()) == pytest.approx([0.5, 0.1])


def test_effort_is_tokens_times_its_price() -> None:
    rows = FRAMES["finals"].assign(seconds_per_token=lambda rows: np.where(rows["arm"] == "ngpt", 2e-3, np.nan))
    figure = drawn(figures.loss_by_effort(rows))
    assert set(figure.axes[1].get_legend_handles_labels()[1]) == {"ngpt"}
    seconds = {x for line in figure.axes[1].lines for x in line.get_xdata()}
    assert seconds == {2.0, 4.0, 8.0}
    assert len(drawn(figures.loss_by_effort(rows.drop(columns="flops_per_token"))).axes) == 2


def test_effects_are_sorted_and_significant_ones_filled() -> None:
    effects = pd.DataFrame(
        {
            "arm": ["worse", "same", "better"],
            "effect": [0.3, 0.01, -0.2],
            "low": [0.2, np.nan, -0.3],
            "high": [0.4, np.nan, -0.1],
            "significant": [True, False, True],
        }
    )
    axes = drawn(figures.ablation_effects(effects, "ngpt")).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["worse", "same", "better"]
    marks = {points(line)[0][0]: to_hex(line.get_markerfacecolor()) for line in axes.lines if line.get_marker() == "o"}
    assert set(marks) == {0.3, 0.01, -0.2}
    assert [value for value, face in marks.items() if face == "#ffffff"] == [0.01]


def test_forty_effects_make_a_higher_figure() -> None:
    few, many = (
        drawn(
            figures.ablation_effects(
                frame("effect", arm=range(count)).astype({"arm": str}).assign(low=0, high=3, significant=True), "x"
            )
        )
        for count in (4, 40)
    )
    assert many.get_figheight() > 4 * few.get_figheight()


def test_a_speed_up_that_is_not_claimed_is_named_beside_those_that_are() -> None:
    ratios = FRAMES["ratios"].assign(ratio=lambda rows: rows["ratio"].mask(rows["arm"] == "slerp"))
    figure = drawn(figures.speed_ups(ratios, "nemotron"))
    for axes in figure.axes:
        assert sum(text.get_text() == "not claimed" for text in axes.texts) == 1
    assert figures.speed_ups(ratios.assign(ratio=np.nan), "nemotron") is None
