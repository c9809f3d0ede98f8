"""A module whose backbone was built on the meta device, made piece by piece with the numbers it would have been built with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ngpt_lab.models import Decoder
from ngpt_lab.nn.shards import local
from ngpt_lab.training.parallel.pieces import piece_of


@dataclass
class Unborn:
    """What a backbone on the meta device needs to be made as if it had been built at once.

    Args:
        parts: all that it was built with, in order, also what has been taken off since.
        random_state: of the CPU's generator when it was built.
    """

    parts: list[nn.Module]
    random_state: Tensor


def on_meta(kind: Callable[..., Decoder], *args: Any, **kwargs: Any) -> Decoder:
    """A decoder that takes no memory yet, and knows from which numbers it is to be made."""
    with torch.device("meta"):
        backbone = kind(*args, **kwargs)
    vars(backbone)["unborn"] = Unborn(list(backbone.modules()), torch.get_rng_state())
    return backbone


def allocate(module: nn.Module, device: torch.device) -> None:
    """Put `module` on a device, with any numbers in what was on the meta device; shared parameters stay shared."""
    first: dict[int, tuple[nn.Module, str]] = {}
    again: list[tuple[nn.Module, str, int]] = []
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) in first:
                again.append((part, name, id(parameter)))
            first.setdefault(id(parameter), (part, name))
    module._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))
    for part, name, of in again:
        other, as_what = first[of]
        part._parameters[name] = other._parameters[as_what]


@torch.no_grad()
def bear(module: nn.Module, backbone: Decoder, unborn: Unborn) -> None:
    """Fill the parameters of `backbone`, and of the rest of `module`, with the bits that building them would have given.

    Every process draws all numbers, those of a part at a time, and keeps its pieces.
    """
    torch.set_rng_state(unborn.random_state)
    for part in unborn.parts:
        if part is not backbone:
            with on_cpu([part]):
                backbone.reset(part)
    for child in module.children():
        if child is not backbone:
            # It was built from the innermost part outwards.
            parts = list(child.modules())[::-1]
            with on_cpu(parts):
                for part in parts:
                    reset = getattr(part, "reset_parameters", None)
                    if callable(reset):
                        reset()


@contextmanager
def on_cpu(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Within, parts have whole parameters of their own on the CPU; afterwards their own ones have the numbers of those."""
    before = [(part, {name: p for name, p in part._parameters.items() if p is not None}) for part in parts]
    for part, own in before:
        for name, parameter in own.items():
            part._parameters[name] = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
    yield
    for part, own in before:
        for name, parameter in own.items():
            if not parameter.is_meta:  # as where a head has been taken off
                fill(parameter, part._parameters[name])  # type: ignore[arg-type]
            part._parameters[name] = parameter


@torch.no_grad()
def fill(tensor: Tensor, numbers: Tensor) -> None:
    """Put all the numbers of a tensor, or those of this process's piece of it, in place."""
    local(tensor.detach()).copy_(piece_of(numbers, tensor) if isinstance(tensor, DTensor) else numbers)
