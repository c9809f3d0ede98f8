import pandas as pd
import pytest

from ngpt_lab.analysis.columns import cell
from ngpt_lab.errors import InputError
from ngpt_lab.report.tuning import chosen_inside, tuning_status

LR = "model.init_args.optimizer.init_args.lr"
ALPHA = "model.init_args.backbone.init_args.alpha"
BUDGET = 819_200


def trials(losses: dict[tuple[float, float | None], float], budget: int = BUDGET) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": "ngpt", "lr": lr, "budget": budget, "val_loss": loss, LR: lr, ALPHA: alpha}
            for (lr, alpha), loss in losses.items()
        ]
    )


LOSSES = {(0.002, 0.25): 2.0, (0.004, 0.25): 1.9, (0.008, 0.25): 1.95, (0.004, 0.05): 2.4, (0.004, 0.5): 2.9}
GRID = trials(LOSSES)


def settings(lr: float, alpha: float | None = 0.25) -> dict[str, object]:
    return {LR: lr, ALPHA: alpha, "elsewhere": 1}


def test_the_best_trial_inside_its_grid_is_tuned() -> None:
    expected = "tuned: best of 5 trials at this budget, learning rate inside its grid 0.002..0.008"
    assert tuning_status(settings(0.004), GRID, BUDGET) == expected


def test_the_best_trial_at_the_edge_of_its_own_grid_says_so() -> None:
    edge = pd.concat([GRID, trials({(0.016, 0.25): 1.8})])
    assert "at the edge of its grid 0.002..0.016" in tuning_status(settings(0.016), edge, BUDGET)
    alone = pd.concat([GRID, trials({(0.004, 1.0): 1.8})])
    expected = (
        "tuned, but the best learning rate sits at the edge of its grid 0.004..0.004 (6 trials); "
        "alpha at the edge of what was tried (0.05..1)"
    )
    assert tuning_status(settings(0.004, 1.0), alone, BUDGET) == expected


def test_every_other_number_at_the_edge_of_what_was_tried_is_told() -> None:
    for alpha in (0.05, 0.5):
        best = trials(LOSSES | {(lr, alpha): loss for lr, loss in ((0.002, 1.8), (0.004, 1.7), (0.008, 1.8))})
        status = tuning_status(settings(0.004, alpha), best, BUDGET)
        assert status.startswith("tuned: best of ")
        assert status.endswith(" inside its grid 0.002..0.008; alpha at the edge of what was tried (0.05..0.5)")
        assert not chosen_inside(status)
    assert chosen_inside(tuning_status(settings(0.004), GRID, BUDGET))


def test_a_word_or_a_number_that_was_not_varied_has_no_edge() -> None:
    words = GRID.assign(**{"model.init": ["1/n_layers"] * 3 + ["0.05", "0.5"], "model.held": 0.1})
    own = settings(0.004) | {"model.init": "1/n_layers", "model.held": 0.1}
    assert "edge" not in tuning_status(own, words, BUDGET)


def test_a_list_is_found_again_as_the_file_has_it() -> None:
    lists = GRID.assign(**{"model.parts": [cell(["a", "b"])] * 3 + [cell(["a"])] * 2})
    assert tuning_status(settings(0.004) | {"model.parts": ["a", "b"]}, lists, BUDGET).startswith("tuned: best of 5 trials")


def test_settings_of_the_same_name_are_told_apart() -> None:
    both = {"attention_residual.init_args.init": [0.1, 0.1, 0.1, 0.2, 0.3], "mlp_residual.init_args.init": [1, 1, 1, 0, 2]}
    own = settings(0.004) | {key: values[0] for key, values in both.items()}
    status = tuning_status(own, GRID.assign(**both), BUDGET)
    assert status.endswith("0.002..0.008; attention_residual.init at the edge of what was tried (0.1..0.3)")


def test_a_trial_that_was_beaten_is_not_the_best() -> None:
    assert tuning_status(settings(0.008), GRID, BUDGET) == "place 2 of 5 trials at this budget, not the best"


def test_a_trial_that_diverged_beats_nothing() -> None:
    diverged = pd.concat([GRID, trials({(0.03, 0.25): float("nan")})])
    assert tuning_status(settings(0.03), diverged, BUDGET) == "place 6 of 6 trials at this budget, not the best"
    assert "inside its grid 0.002..0.03" in tuning_status(settings(0.004), diverged, BUDGET)


def test_a_lucky_trial_with_one_seed_does_not_beat_one_with_two() -> None:
    rows = pd.concat([GRID, trials({(0.004, 0.25): 2.0}), trials({(0.016, 0.25): 1.92})])
    assert tuning_status(settings(0.004), rows, BUDGET).startswith("tuned: best of 6 trials")


def test_columns_of_other_arms_do_not_count() -> None:
    rows = GRID.assign(**{"model.init_args.backbone.init_args.initializer_range": float("nan")})
    own = settings(0.004) | {"model.init_args.backbone.init_args.initializer_range": 0.02}
    assert tuning_status(own, rows, BUDGET).startswith("tuned: best of 5 trials")


def test_seeds_of_one_trial_are_averaged() -> None:
    twice = pd.concat([GRID, GRID.assign(val_loss=GRID["val_loss"].where(GRID["lr"] != 0.004, 2.6))])
    assert tuning_status(settings(0.004), twice, BUDGET).startswith("place 3 of 5")


def test_a_budget_that_rounds_to_other_steps_is_the_same_and_another_is_not() -> None:
    assert tuning_status(settings(0.004), GRID, BUDGET + 2048).startswith("tuned: best")
    assert tuning_status(settings(0.004), GRID, BUDGET // 4) == "tuned at another budget (819,200 tokens)"


@pytest.mark.parametrize("own", [settings(0.005), settings(0.004, 0.3), settings(0.004, None)])
def test_settings_that_nobody_tried_are_not_tuned(own: dict[str, object]) -> None:
    assert tuning_status(own, GRID, BUDGET).startswith("not tuned")


def test_without_a_search_nothing_is_tuned() -> None:
    assert tuning_status(settings(0.004), None, BUDGET) == "not tuned"
    assert tuning_status(settings(0.004), GRID.iloc[:0], BUDGET) == "not tuned"


def test_an_empty_cell_means_that_the_arm_has_no_such_setting() -> None:
    mixed = trials({(0.002, None): 2.0, (0.004, None): 1.9, (0.008, None): 1.95, (0.008, 0.5): 2.5})
    assert tuning_status({LR: 0.004}, mixed, BUDGET).startswith("tuned: best of 4")


def test_rows_without_a_learning_rate_are_refused() -> None:
    with pytest.raises(InputError, match="'lr'"):
        tuning_status(settings(0.004), GRID.drop(columns="lr"), BUDGET)
