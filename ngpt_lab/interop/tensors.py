"""A state dict's names and shapes against a decoder's."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.interop.fields import Fields
from ngpt_lab.models.decoder import Decoder

# Of tensors that do not fit, so many are named.
FAULTS_NAMED = 12


class Names(NamedTuple):
    """One parameter, two names: each dict is the other's inverse.

    Args:
        theirs: from our parameter's name to the reference's.
        ours: from the reference's name to our parameter's.
    """

    theirs: dict[str, str]
    ours: dict[str, str]


def translated(name: str, table: Mapping[str, str]) -> str:
    """Our parameter's name in the reference's words; `table` maps parameters or whole modules, with {} for the layer."""
    pattern = re.sub(r"\d+", "{}", name)
    module, _, leaf = pattern.rpartition(".")
    theirs = table[pattern] if pattern in table else f"{table[module]}.{leaf}"
    return theirs.format(*re.findall(r"\d+", name))


@dataclass(frozen=True)
class Reference:
    """What there is to know about a published implementation.

    Args:
        kind: its name.
        defaults: the fields of its config that say something about the function, as `Fields` takes them.
        build: from its config to a decoder of the same function.
        names: our parameters and modules to its own, as `translated` takes them.
        ignored: fields of its config that say nothing about the function.
        columns: suffixes of its names for vectors it stores as [n, 1].
        repeats: a name that the state dict of a tied model may also have, and the name of the tensor it repeats.
    """

    kind: str
    defaults: Mapping[str, object]
    build: Callable[[Fields], Decoder]
    names: Callable[[Decoder], dict[str, str]]
    ignored: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    repeats: Mapping[str, str] = field(default_factory=dict)

    def skeleton(self, config: Mapping[str, Any]) -> Decoder:
        """The decoder of `config`, without memory for its parameters."""
        fields = Fields(self.kind, config, self.defaults, self.ignored)
        with torch.device("meta"):
            return self.build(fields)

    def shape(self, name: str, parameter: Tensor) -> tuple[int, ...]:
        """The shape of our `parameter` under the reference's `name`."""
        return (*parameter.shape, 1) if name.endswith(self.columns) else tuple(parameter.shape)


def named(decoder: Decoder, table: Mapping[str, str]) -> dict[str, str]:
    """The reference's name of every parameter of `decoder`; a tied one comes once."""
    return {name: translated(name, table) for name, _ in decoder.named_parameters()}


def check(reference: Reference, decoder: Decoder, state_dict: Mapping[str, Tensor]) -> None:
    """Refuse a state dict with tensors missing, left over or of another shape, naming them."""
    names = reference.names(decoder)
    expected = {names[ours]: reference.shape(names[ours], p) for ours, p in decoder.named_parameters()}
    check_expected(reference, expected, state_dict)


def check_expected(reference: Reference, expected: Mapping[str, tuple[int, ...]], state_dict: Mapping[str, Tensor]) -> None:
    """Refuse a state dict whose tensors are not of the expected names and shapes, naming them; of many, the first."""
    faults = [f"{name} is missing" for name in expected if name not in state_dict]
    for name, tensor in state_dict.items():
        if name not in expected:
            if not _repeats(name, reference, state_dict):
                faults.append(f"{name} has no place")
        elif tuple(tensor.shape) != expected[name]:
            faults.append(f"{name} has shape {list(tensor.shape)}, not {list(expected[name])}")
        elif not tensor.is_floating_point():
            faults.append(f"{name} is of {tensor.dtype}, not floating point")
    if faults:
        more = f"; and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
        raise InputError(f"{reference.kind} state dict does not fit its config: {'; '.join(faults[:FAULTS_NAMED])}{more}")


def _repeats(name: str, reference: Reference, state_dict: Mapping[str, Tensor]) -> bool:
    twin = state_dict.get(reference.repeats.get(name, ""))
    return twin is not None and twin.dtype == state_dict[name].dtype and torch.equal(twin, state_dict[name])


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make each tensor the parameter of its name, in its own memory and dtype; tied parameters stay tied."""
    made = {id(p): nn.Parameter(tensors[name].detach().view(p.shape), p.requires_grad) for name, p in module.named_parameters()}
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, made[id(parameter)])
