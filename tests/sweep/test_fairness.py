"""Arms differ in what is compared, and in nothing that decides how they are trained."""

from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.fairness import SCHEDULE, check_finishes, check_same

TOKENS_PER_STEP, SMALLEST = 512, 5120


@pytest.mark.parametrize(
    "key",
    [
        "data.init_args.batch_size",
        "trainer.accelerator",
        "trainer.accumulate_grad_batches",
        "trainer.devices",
        "trainer.gradient_clip_algorithm",
        "trainer.gradient_clip_val",
        "trainer.limit_test_batches",
        "trainer.limit_train_batches",
        "trainer.limit_val_batches",
        "trainer.max_time",
        "trainer.num_nodes",
        "trainer.overfit_batches",
        "trainer.precision",
        "trainer.strategy",
        "trainer.strategy.class_path",
    ],
)
def test_what_decides_the_batches_and_the_rules_is_the_same_for_all(key: str) -> None:
    check_same({"a": {key: 1, "model.lr": 1}, "b": {key: 1, "model.lr": 2}}, "b")
    with pytest.raises(InputError, match=f"arms a and b differ in {key} \\(1 and None\\)"):
        check_same({"a": {key: 1}, "b": {}}, "b")


@pytest.mark.parametrize(
    ("unit", "setting", "most"),
    [("steps", "length", 10), ("tokens", "length", 5120), ("steps", "warmup", 9), ("tokens", "warmup", 5119)],
)
def test_a_schedule_must_end_within_the_smallest_budget(unit: str, setting: str, most: int) -> None:
    def arms(value: float) -> dict[str, dict[str, Any]]:
        return {"a": {f"{SCHEDULE}.unit": unit, f"{SCHEDULE}.{setting}": value}}

    check_finishes(arms(most), SMALLEST, TOKENS_PER_STEP)
    with pytest.raises(InputError, match=f"arm a has a .*{setting} .*{most + 1} {unit}.* only finished schedules"):
        check_finishes(arms(most + 1), SMALLEST, TOKENS_PER_STEP)


def test_a_share_of_the_run_as_warmup_always_ends() -> None:
    check_finishes({"a": {f"{SCHEDULE}.unit": "tokens", f"{SCHEDULE}.warmup": 0.5}}, 1, TOKENS_PER_STEP)


@pytest.mark.parametrize("key", ["trainer.max_time", "trainer.max_time.minutes"])
def test_a_limit_on_time_is_refused(key: str) -> None:
    check_finishes({"a": {key: None}}, SMALLEST, TOKENS_PER_STEP)
    with pytest.raises(InputError, match=r"arm a sets trainer.max_time: only finished schedules"):
        check_finishes({"a": {key: 5}}, SMALLEST, TOKENS_PER_STEP)
