"""Which arms may be compared: same batches, same rules, same size, and schedules that come to their end."""

from collections.abc import Mapping
from typing import Any

from ngpt_lab.errors import InputError

# Arms further apart than this are no fair comparison (design of the bench: sizes within 2%).
PARAMETERS_APART = 0.02
# Settings that decide which batches an arm sees and by which rules it trains; the length of a run is set by the budget.
SAME_FOR_ALL = (
    "data.",
    "trainer.accelerator",
    "trainer.accumulate_grad_batches",
    "trainer.devices",
    "trainer.gradient_clip_",
    "trainer.limit_",
    "trainer.max_time",
    "trainer.num_nodes",
    "trainer.overfit_batches",
    "trainer.precision",
    "trainer.strategy",
)
SCHEDULE = "model.init_args.schedule.init_args"


def check_same(settings: Mapping[str, Mapping[str, Any]], baseline: str) -> None:
    """Refuse arms that would not see the same batches under the same rules.

    Raises:
        InputError: names the arms and the key.
    """
    for name, flat in settings.items():
        for key in sorted(flat.keys() | settings[baseline].keys()):
            mine, theirs = flat.get(key), settings[baseline].get(key)
            if key.startswith(SAME_FOR_ALL) and mine != theirs:
                raise InputError(
                    f"arms {name} and {baseline} differ in {key} ({mine} and {theirs}): "
                    "set it alike, so that they see the same batches under the same rules"
                )


def check_sizes(parameters: Mapping[str, int], baseline: str) -> None:
    """Refuse arms whose sizes are too far apart.

    Raises:
        InputError: names the arms and their parameters.
    """
    for name, count in parameters.items():
        if abs(count / parameters[baseline] - 1) > PARAMETERS_APART:
            raise InputError(
                f"arm {name} has {count:,} parameters and {baseline} {parameters[baseline]:,}, more than "
                f"{PARAMETERS_APART:.0%} apart: match their sizes, or go on with --allow-unequal"
            )


def check_finishes(settings: Mapping[str, Mapping[str, Any]], smallest: int, tokens_per_step: int) -> None:
    """Refuse arms whose schedule does not come to its end within the smallest budget, of `smallest` tokens.

    Raises:
        InputError: names the arm and the key.
    """
    for name, flat in settings.items():
        if any(key.startswith("trainer.max_time") and value is not None for key, value in flat.items()):
            raise InputError(f"arm {name} sets trainer.max_time: only finished schedules are compared, so leave it out")
        unit = flat.get(f"{SCHEDULE}.unit")
        tokens = 1 if unit == "tokens" else tokens_per_step
        length, warmup = flat.get(f"{SCHEDULE}.length"), flat.get(f"{SCHEDULE}.warmup") or 0
        told = f"the smallest budget of {smallest:,} tokens: only finished schedules are compared, so"
        if length is not None and length * tokens > smallest:
            raise InputError(f"arm {name} has a schedule of length {length} {unit}, longer than {told} leave length out")
        # Below 1 a warmup is a share of the run.
        if warmup >= 1 and warmup * tokens >= smallest:
            raise InputError(f"arm {name} has a warmup of {warmup:g} {unit}, not shorter than {told} shorten it")
