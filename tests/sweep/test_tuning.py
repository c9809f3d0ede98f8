"""Every arm is given the settings of its own best trial, chosen on validation."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ngpt_lab.sweep.plan import Sweep
from ngpt_lab.sweep.tuning import choose, without_choice

LR = "model.init_args.optimizer.init_args.lr"
RATES = [0.001, 0.002, 0.004]
# Losses of seeds 7 and 8 by arm and rate: the mean decides, not the best single run.
LOSSES: Mapping[str, Mapping[float, tuple[float | None, float]]] = {
    "ngpt": {0.001: (2.0, 3.0), 0.002: (2.4, 2.4), 0.004: (None, 1.0)},
    "nemotron": {0.001: (2.1, 2.1), 0.002: (2.2, 2.2), 0.004: (2.3, 2.3)},
}
TUNE = {"seeds": [7, 8], "grid": {LR: RATES}, "by": "base"}


def carried_out(sweep: Sweep, left_out: float | None = None) -> None:
    """Records of all trials, as training would leave them; None is a run that failed."""
    for run in sweep.trials:
        loss = LOSSES[run.cell.arm][run.trial[LR]][run.seed - 7]
        if run.trial[LR] == left_out and run.cell.arm == "ngpt":
            continue
        record: dict[str, Any] = {"steps": run.steps, "tokens_per_step": 256, "tokens": run.steps * 256}
        record |= {"status": "failed"} if loss is None else {"status": "finished", "final": {"val/loss": loss}}
        folder = sweep.planned(run, {}).folder
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record))


def test_the_lowest_mean_is_chosen_and_a_failed_trial_is_the_worst(plan: Callable[..., Sweep]) -> None:
    sweep = plan(tune=TUNE, budgets=[512])
    carried_out(sweep)
    chosen = choose(sweep)
    by_arm = {run.cell.arm: point for run, point in chosen.items()}
    assert by_arm == {"ngpt": {LR: 0.002}, "ngpt-slerp": {LR: 0.002}, "nemotron": {LR: 0.001}}
    assert set(chosen) == set(sweep.finals)
    assert without_choice(sweep, chosen) is None


def test_an_arm_whose_trials_are_not_all_done_is_not_chosen_for(plan: Callable[..., Sweep]) -> None:
    sweep = plan(tune=TUNE, budgets=[512])
    carried_out(sweep, left_out=0.004)
    chosen = choose(sweep)
    assert {run.cell.arm for run in chosen} == {"nemotron"}
    assert "every trial of ngpt at 512 tokens failed or is missing, so 4 run(s)" in str(without_choice(sweep, chosen))


def test_what_a_run_began_with_holds_for_all_that_share_its_trials(plan: Callable[..., Sweep]) -> None:
    sweep = plan(tune=TUNE, budgets=[512])
    carried_out(sweep)
    first = sweep.planned(sweep.finals[0], {LR: 0.001})  # as chosen when the better trial had failed
    first.folder.mkdir(parents=True)
    (first.folder / "run.json").write_text(json.dumps({"status": "running", **first.labels}))
    by_arm = {run.cell.arm: point for run, point in choose(sweep).items()}
    assert by_arm == {"ngpt": {LR: 0.001}, "ngpt-slerp": {LR: 0.001}, "nemotron": {LR: 0.001}}


def test_a_trial_never_reads_the_test_split(plan: Callable[..., Sweep]) -> None:
    sweep = plan(tune=TUNE, budgets=[512])
    assert {sweep.planned(run, {}).splits for run in sweep.trials} == {("val",)}
    assert {sweep.planned(run, {}).splits for run in sweep.finals} == {("val", "test")}


def test_without_tuning_the_settings_are_the_arms_own(plan: Callable[..., Sweep]) -> None:
    sweep = plan()
    assert choose(sweep) == {run: {} for run in sweep.finals}
