"""What a run's checkpoint must look like before anything of it is used."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import BrokenCheckpointError

TENSORS_IN = ("state_dict", "optimizer_states", "callbacks", "random_states")
KINDS: dict[str, type] = {
    "state_dict": Mapping,
    "global_step": int,
    "epoch": int,
    "pytorch-lightning_version": str,
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
}
# What has a parameter's shape; other optimizers may keep other things.
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")
PLAIN = (str, int, float, type(None))


def check_form(checkpoint: Any, path: Path) -> None:
    """Refuse what is no run's checkpoint: of another type, with parts missing, with tensors where numbers belong.

    Raises:
        BrokenCheckpointError: names the file and the part.
    """
    told = wrong_in(checkpoint, KINDS) or tensor_for_number_in(checkpoint)
    if told is not None:
        raise BrokenCheckpointError(f"{path} is no run's checkpoint: {told}; give one of a run")


def check_weights(checkpoint: Any, path: Path) -> None:
    """Refuse what holds no weights; evaluating takes nothing else.

    Raises:
        BrokenCheckpointError: names the file and what is wrong.
    """
    told = wrong_in(checkpoint, {"state_dict": KINDS["state_dict"]})
    if told is not None:
        raise BrokenCheckpointError(f"{path} is no checkpoint with weights: {told}; give one of a run")


def wrong_in(checkpoint: Any, kinds: Mapping[str, type]) -> str | None:
    """The first thing that is wrong with what should be a checkpoint with parts of these kinds."""
    if not isinstance(checkpoint, dict):
        return f"it holds a {type(checkpoint).__name__}"
    absent = (f"it has no {name}" for name in kinds if name not in checkpoint)
    of_another_kind = (
        f"its {name} is a {type(checkpoint[name]).__name__}"
        for name, kind in kinds.items()
        if not isinstance(checkpoint[name], kind) or isinstance(checkpoint[name], bool)
    )
    no_weights = (
        f"{name} of its weights is no tensor"
        for weights in ("state_dict",)
        for name, value in checkpoint[weights].items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    )
    return next(chain(absent, of_another_kind, no_weights), None)


def tensor_for_number_in(checkpoint: Mapping[str, Any]) -> str | None:
    """The first tensor where a number belongs."""
    found = (
        f"its {name} holds a {type(value).__name__} where a number belongs"
        for name in checkpoint.keys() - set(TENSORS_IN)
        for value in leaves(checkpoint[name])
        if not isinstance(value, PLAIN)
    )
    return next(found, None)


def check_optimizer_states(states: list[Any], optimizers: list[torch.optim.Optimizer], path: str) -> None:
    """Refuse an optimizer's state that is not of the parameters it is for: a fused step would read past its end.

    Raises:
        InputError: names the file.
    """
    if len(states) != len(optimizers) or not all(map(fits, states, optimizers)):
        raise InputError(f"{path} cannot be continued from: its optimizer's state is not of this model's parameters")


def fits(state: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a state is of the optimizer's parameters, moment by moment."""
    try:
        groups = [group["params"] for group in state["param_groups"]]
        ours = [group["params"] for group in optimizer.param_groups]
        shapes = {
            index: parameter.shape
            for group, parameters in zip(groups, ours, strict=True)
            for index, parameter in zip(group, parameters, strict=True)
        }
        return all(
            value is None or value.shape == shapes[index]
            for index, values in state["state"].items()
            for name, value in values.items()
            if name in MOMENTS
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def leaves(tree: Any) -> Iterator[Any]:
    """Everything in a tree that is no container; each container is looked into once, however often it stands there."""
    waiting, seen = [tree], set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Mapping | list | tuple | set):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting.extend([*value.keys(), *value.values()] if isinstance(value, Mapping) else value)
