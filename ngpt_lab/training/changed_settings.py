"""Which settings of a run may change when it goes on from a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from ngpt_lab.errors import InputError

Settings = Mapping[str, Any]

# What decides which model is trained on which batches.
FIXED = (
    "seed_everything",
    "model.class_path",
    "model.init_args.backbone",
    "data",
    "trainer.accumulate_grad_batches",
    "trainer.precision",
)
# Of the data: where it lies, also where that is said in a list; its fingerprint is compared in any case.
PLACES = {"files", "validation", "test", "folder", "path", "store"}
# How fast it comes, and how much of it is evaluated.
FREE = PLACES | {"processes", "num_workers", "eval_windows"}


def as_text(settings: Settings) -> str:
    """Settings as a checkpoint keeps them."""
    return json.dumps(settings, default=str)


def changes(before: str, settings: Settings) -> dict[str, list[Any]]:
    """What is set otherwise than in a checkpoint: each key with the value before and the one now.

    Args:
        before: the checkpoint's settings, of `as_text`.
        settings: those of the run that goes on from it.

    Raises:
        InputError: something differs that must not; or the checkpoint's are no settings.
    """
    try:
        old = json.loads(before)
    except (TypeError, ValueError) as error:
        raise InputError("the checkpoint's settings are not JSON: go on from another one") from error
    if not isinstance(old, dict):
        raise InputError("the checkpoint's settings are no mapping: go on from another one")
    new = json.loads(as_text(settings))
    # Keys that only the new settings have are those of a newer version, or part of a key that differs.
    changed = {key: [value, new.get(key)] for key, value in old.items() if key not in new or new[key] != value}
    for key, (then, now) in changed.items():
        if is_fixed(key) and not (is_of_data(key) and key in new and without_places(then) == without_places(now)):
            raise InputError(
                f"the checkpoint was trained with {key.replace('.init_args', '')} {shown(then)} and this run has "
                f"{shown(now) if key in new else 'something else'}: set it as it was, or start a new run without the checkpoint"
            )
    return changed


def is_fixed(key: str) -> bool:
    """Whether a setting must stay as it is."""
    parts = key.split(".")
    fixed = any(key == name or key.startswith(f"{name}.") for name in FIXED)
    return fixed and not (is_of_data(key) and FREE & set(parts))


def is_of_data(key: str) -> bool:
    """Whether a setting is one of the data."""
    return key.split(".")[0] == "data"


def without_places(value: Any) -> Any:
    """A setting less where things lie, as in the list of a mixture's sources."""
    if isinstance(value, dict):
        return {key: without_places(part) for key, part in value.items() if key not in PLACES}
    return [without_places(part) for part in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A value as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value)
