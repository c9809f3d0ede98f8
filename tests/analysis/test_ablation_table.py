import math
import random
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ngpt_lab.analysis.ablation_table import BASELINE, NO_DIFFERENCE, ablation_table, equal_cost_table
from ngpt_lab.analysis.columns import METRICS
from ngpt_lab.analysis.statistics import holm
from ngpt_lab.errors import InputError

MadeRows = Callable[..., pd.DataFrame]
NOISE = np.array([0.004, -0.003, 0.001, 0.002, -0.004])


def table(rows: pd.DataFrame, metric: str = "test/loss", budget: int | None = None) -> pd.DataFrame:
    return ablation_table(rows, "plain", metric, budget).set_index("arm")


@pytest.fixture
def five(made_rows: MadeRows) -> pd.DataFrame:
    """Arms with known effects on a baseline whose seeds lie far apart."""
    seeds = np.array([1.9, 2.0, 2.1, 2.05, 1.95])
    return made_rows(
        {
            "worse": seeds + 0.05 + NOISE[::-1],
            "plain": seeds,
            "same": seeds + 10 * NOISE,
            "better": seeds - 0.05 + NOISE,
        }
    )


def test_planted_effects_are_found_and_sorted(five: pd.DataFrame) -> None:
    found = table(five)
    assert list(found.index) == ["plain", "better", "same", "worse"]
    assert found["effect"].to_list()[1:] == pytest.approx([-0.05, 0.0, 0.05])
    assert found["verdict"].to_list()[:2] == [BASELINE, "lower"]
    assert found["verdict"].iloc[3] == "higher"
    assert found["mean"].to_list() == pytest.approx([2.0, 1.95, 2.0, 2.05])
    assert found["percent"].to_list()[1:] == pytest.approx([-2.5, 0.0, 2.5])


def test_no_difference_says_what_would_have_been_found(five: pd.DataFrame) -> None:
    same = table(five).loc["same"]
    assert same["verdict"] == f"{NO_DIFFERENCE} (a difference of {same['detectable']:.4f} would have been)"
    assert same["low"] < 0 < same["high"] < same["detectable"]


def test_p_values_are_scipys_and_corrected_over_all_conditions(five: pd.DataFrame) -> None:
    found = ablation_table(pd.concat([five, five.assign(condition="seq_len=512")]), "plain", "test/loss")
    tested = found[found["verdict"] != BASELINE]
    by_arm = five.pivot(index="seed", columns="arm", values="test/loss")
    expected = [stats.ttest_rel(by_arm[arm], by_arm["plain"]).pvalue for arm in tested["arm"]]
    assert tested["p"].to_list() == pytest.approx(expected)
    assert tested["p_holm"].to_list() == pytest.approx(holm(expected))
    assert len(tested) == 6


def test_a_difference_lost_to_the_correction_is_no_verdict(made_rows: MadeRows) -> None:
    seeds = np.array([2.0, 2.1, 1.9])
    edge = 0.01 * np.array([1.0, 1.3, 0.8])
    alone = table(made_rows({"plain": seeds, "arm": seeds + edge}))
    among = table(made_rows({"plain": seeds, "arm": seeds + edge} | {f"x{k}": seeds + k * NOISE[:3] for k in range(1, 20)}))
    assert alone.loc["arm", "verdict"] == "higher"
    assert among.loc["arm", "low"] > 0
    assert among.loc["arm", "verdict"].startswith(NO_DIFFERENCE)
    assert among.loc["arm", "effect"] < among.loc["arm", "detectable"]


def test_arms_are_compared_within_their_condition_and_budget_only(made_rows: MadeRows) -> None:
    rows = pd.concat(
        [
            made_rows({"plain": [3.0, 3.1, 3.2], "arm": [2.9, 3.0, 3.1]}, condition="seq_len=1024"),
            made_rows({"plain": [2.0, 2.1, 2.2], "arm": [2.2, 2.3, 2.4]}, condition="seq_len=256"),
            made_rows({"plain": [9.0, 9.1, 9.2], "arm": [1.0, 1.0, 1.0]}, budget=204_800, condition="seq_len=256"),
        ]
    )
    found = ablation_table(rows, "plain", "test/loss")
    assert found["condition"].to_list() == ["seq_len=256"] * 2 + ["seq_len=1024"] * 2
    assert found["effect"].to_list()[1::2] == pytest.approx([0.2, -0.1])
    small = ablation_table(rows, "plain", "test/loss", budget=204_800)
    assert small["n"].to_list() == [3, 3, 0, 0]


def test_only_shared_seeds_count(made_rows: MadeRows) -> None:
    rows = made_rows({"plain": [2.0, 2.1, 2.2, 9.0], "arm": [2.1, 2.2, 2.3]})
    found = table(rows)
    assert found["n"].to_list() == [4, 3]
    assert found.loc["arm", "effect"] == pytest.approx(0.1)


@pytest.mark.parametrize(("losses", "pairs"), [([2.3, 2.4], 2), ([2.3], 1), ([math.nan], 0)])
def test_fewer_than_three_seeds_claim_nothing_and_cost_the_others_nothing(
    made_rows: MadeRows, losses: list[float], pairs: int
) -> None:
    plain, sure = [2.0, 2.1, 2.2], [1.9, 2.01, 2.09]
    found = table(made_rows({"plain": plain, "sure": sure, "few": losses}))
    assert found.loc["few", "n"] == pairs
    assert found.loc["few", "verdict"] == "fewer than 3 seeds: no claim"
    assert found.loc["sure", "p_holm"] == found.loc["sure", "p"]


def test_learned_scales_stand_beside_the_effect(made_rows: MadeRows) -> None:
    rows = pd.concat([made_rows({"plain": [2.0, 2.1]}), made_rows({"ngpt": [2.0, 2.1]}, **{"mean/s_qk": 1.5})])
    found = table(rows)
    assert found.loc["ngpt", "mean/s_qk"] == 1.5
    assert math.isnan(found.loc["plain", "mean/s_qk"])


losses = st.lists(st.floats(1.0, 4.0), min_size=5, max_size=5)


@settings(deadline=None, max_examples=25)
@given(st.fixed_dictionaries({"plain": losses, "a": losses, "b": losses}), st.randoms())
def test_the_order_of_the_rows_does_not_matter(
    made_rows: MadeRows, made: dict[str, list[float]], shuffled: random.Random
) -> None:
    rows = made_rows(made)
    mixed = rows.iloc[shuffled.sample(range(len(rows)), len(rows))]
    pd.testing.assert_frame_equal(ablation_table(mixed, "plain", "val/loss"), ablation_table(rows, "plain", "val/loss"))
    pd.testing.assert_frame_equal(equal_cost_table(mixed, "plain"), equal_cost_table(rows, "plain"))


@settings(deadline=None, max_examples=25)
@given(st.fixed_dictionaries({"plain": losses, "a": losses}), st.floats(0, 5))
def test_a_constant_added_to_every_loss_changes_no_effect(
    made_rows: MadeRows, made: dict[str, list[float]], constant: float
) -> None:
    before, after = (table(made_rows({arm: np.add(own, add) for arm, own in made.items()})) for add in (0.0, constant))
    for column in ("effect", "half_width", "detectable"):
        assert after[column].to_list() == pytest.approx(before[column].to_list(), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("baseline", "metric", "budget", "words"),
    [
        ("none", "test/loss", None, "baseline 'none'"),
        ("plain", "test/beauty", None, "metric 'test/beauty': there are train/loss, val/loss"),
        ("plain", "test/loss", 5, "budget 5: there are"),
    ],
)
def test_what_is_not_there_is_refused(five: pd.DataFrame, baseline: str, metric: str, budget: int | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ablation_table(five, baseline, metric, budget)


def power_law(made_rows: MadeRows, speed_up: float, arm: str, **changes: object) -> pd.DataFrame:
    frames = [
        made_rows({arm: [9 - 0.5 * math.log(speed_up * tokens) + 0.1 * seed for seed in range(3)]}, budget=tokens, **changes)
        for tokens in (204_800, 409_600, 819_200)
    ]
    return pd.concat(frames)


def test_equal_loss_costs_tokens_flops_and_seconds(made_rows: MadeRows) -> None:
    plain = power_law(made_rows, 1.0, "plain")
    rows = pd.concat([plain, power_law(made_rows, 1.5, "arm", flops_per_token=6_000_000)])
    [row] = equal_cost_table(rows, "plain", {"": {"plain": [1.0, 2.0], "arm": [2.0, 4.0]}}).to_dict("records")
    assert (row["tokens"], row["flops"], row["seconds"]) == pytest.approx((1.5, 1.25, 0.75))
    assert (row["n"], row["reason"]) == (3, "")
    assert row["tokens_low"] <= row["tokens"] <= row["tokens_high"]


def test_seconds_count_the_tokens_of_a_step(made_rows: MadeRows) -> None:
    plain, arm = power_law(made_rows, 1.0, "plain"), power_law(made_rows, 1.5, "arm")
    arm["steps"] //= 2
    [row] = equal_cost_table(pd.concat([plain, arm]), "plain", {"": {"plain": [1.0], "arm": [2.0]}}).to_dict("records")
    assert row["seconds"] == pytest.approx(1.5)


def test_the_steps_of_a_condition_are_those_measured_under_it(made_rows: MadeRows) -> None:
    rows = pd.concat([power_law(made_rows, 1.0, "plain"), power_law(made_rows, 1.5, "arm")])
    three = pd.concat([rows.assign(condition=name) for name in ("a=1", "a=2", "a=3")])
    seconds = {"a=2": {"plain": [1.0], "arm": [2.0]}, "a=1": {"plain": [1.0], "arm": [1.0]}}
    found = equal_cost_table(three, "plain", seconds)
    assert found["tokens"].to_list() == pytest.approx([1.5, 1.5, 1.5])
    assert found["seconds"].to_list() == pytest.approx([1.5, 0.75, math.nan], nan_ok=True)


def test_what_is_not_claimed_says_why(made_rows: MadeRows) -> None:
    rows = pd.concat([power_law(made_rows, 1.0, "plain"), power_law(made_rows, 9.0, "arm")])
    [row] = equal_cost_table(rows, "plain", {"": {"plain": [1.0], "arm": [2.0]}}).to_dict("records")
    assert "outside its finished points" in row["reason"]
    assert all(math.isnan(row[cost]) for cost in ("tokens", "flops", "seconds", "loss"))


def test_every_metric_of_a_run_can_be_compared(five: pd.DataFrame) -> None:
    assert all(table(five, metric).loc["better", "verdict"] == "lower" for metric in METRICS)


def test_a_condition_without_baseline_runs_has_no_costs(five: pd.DataFrame) -> None:
    alone = five[five["arm"] == "same"].assign(condition="seq_len=512")
    costs = equal_cost_table(pd.concat([five, alone]), "plain")
    found = costs[costs["condition"] == "seq_len=512"].iloc[0]
    assert found["arm"] == "same"
    assert math.isnan(found["tokens"])
    assert math.isnan(found["flops"])
    assert found["reason"]
