"""What an attention function is: what it computes, what it takes for a mask, and where it can be used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.nn.masks import causal_mask

# Queries (B, H, T, D), keys and values (B, H_kv, S, D), a mask, the scale of the scores and the share of the weights dropped
# to outputs (B, H, T, D). The mask is what the function's `prepare` made of the arguments of `causal_mask`; None means that
# the queries are the last T of S positions, of which each sees itself and those before it.
Attend = Callable[[Tensor, Tensor, Tensor, Any, float, float], Tensor]


@dataclass(frozen=True)
class Situation:
    """What attention is computed on.

    Args:
        device: where.
        dtype: of the values; queries and keys have it too.
        heads: query heads.
        kv_heads: key and value heads.
        d_head: channels of a head.
        queries: positions that ask, T.
        keys: positions that are seen, S.
        documents: whether documents are told apart.
        padding: whether some positions hold no token.
        dropout: share of the weights dropped.
        gradients: whether there is a backward pass.
        compiled: whether it is part of a compiled graph.
    """

    device: torch.device
    dtype: torch.dtype
    heads: int
    kv_heads: int
    d_head: int
    queries: int
    keys: int
    documents: bool = False
    padding: bool = False
    dropout: float = 0.0
    gradients: bool = False
    compiled: bool = False

    @property
    def masked(self) -> bool:
        """Whether it needs a mask besides the causal one of `Attend`."""
        return self.documents or self.padding or 1 < self.queries < self.keys


@dataclass(frozen=True)
class Limits:
    """What a kernel cannot do; `on` in a name means the types of device where that is so.

    Args:
        devices: the only types of device it runs on; empty for all.
        half_on: it computes in bfloat16 and float16 alone.
        no_mask_on: it takes no mask.
        no_dropout_on: it has no dropout.
        no_gradients_on: it has no backward pass.
        no_padding: it takes documents, but no positions without a token.
        d_head_on: the smallest and largest number of channels a head may have.
        package: the module it needs, and what to install for it.
        capability: the GPU's compute capability it needs, before the point; empty for any.
    """

    devices: tuple[str, ...] = ()
    half_on: tuple[str, ...] = ()
    no_mask_on: tuple[str, ...] = ()
    no_dropout_on: tuple[str, ...] = ()
    no_gradients_on: tuple[str, ...] = ()
    no_padding: bool = False
    d_head_on: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    package: tuple[str, str] | None = None
    capability: tuple[int, ...] = ()

    def of_call(self, s: Situation) -> str | None:
        """Why it cannot compute this, as the rest of a sentence about it; None where it can."""
        device = s.device.type
        smallest, largest = self.d_head_on.get(device, (1, s.d_head))
        refusals = (
            (len(self.devices) > 0 and device not in self.devices, "runs on {} alone, and this is {}", self.devices, device),
            (device in self.half_on and s.dtype.itemsize > 2, "computes in half precision, and this is {}", s.dtype),
            (device in self.no_mask_on and s.masked, "takes no mask, and documents, padding or a cache need one"),
            (self.no_padding and s.padding, "takes documents, but no padding"),
            (device in self.no_dropout_on and s.dropout > 0, "has no dropout there, and attention_dropout is {}", s.dropout),
            (device in self.no_gradients_on and s.gradients, "cannot train on a {}", device),
            (not smallest <= s.d_head <= largest, "takes heads of {} to {} channels, not {}", smallest, largest, s.d_head),
        )
        for refused, why, *told in refusals:
            if refused:
                return why.format(*(" or ".join(told_of) if isinstance(told_of, tuple) else told_of for told_of in told))
        return None

    def of_machine(self, s: Situation) -> str | None:
        """Why it cannot run on this machine; None where it can."""
        if self.package is not None and not installed(self.package[0]):
            return f"needs the module {self.package[0]} of {self.package[1]}, which is not installed"
        if self.capability and torch.cuda.get_device_capability(s.device)[0] not in self.capability:
            return f"needs a GPU of compute capability {' or '.join(f'{major}.x' for major in self.capability)}"
        return None


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # that of its package
        return False


def working_dtype(device: torch.device, stored: torch.dtype) -> torch.dtype:
    """What products of matrices stored in a dtype are computed in."""
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return stored


def nothing() -> None:
    """What most functions need to be made ready."""


def own_name(kernel: str, _: Situation) -> str:
    """The name of a kernel that is the same everywhere."""
    return kernel


@dataclass(frozen=True)
class AttentionFunction:
    """An attention function, and where it can be used.

    Args:
        name: what settings call it.
        compute: the function.
        kernel: what computes it in a situation.
        prepare: what its mask is, once for all layers of a call; the arguments are those of `causal_mask`.
        limits: what it cannot do.
        make_ready: what has to be done in this process before it is used.
    """

    name: str
    compute: Attend
    kernel: Callable[[Situation], str]
    prepare: Callable[..., Any] = causal_mask
    limits: Limits = field(default_factory=Limits)
    make_ready: Callable[[], None] = nothing

    def fits(self, situation: Situation) -> bool:
        """Whether it can be used there."""
        return self.limits.of_call(situation) is None and self.limits.of_machine(situation) is None

    def used(self, situation: Situation) -> "AttentionFunction":
        """Itself.

        Raises:
            InputError: it cannot be used there; a graph that is being compiled was asked about before, in `settled`.
        """
        if not torch.compiler.is_compiling():
            why = self.limits.of_call(situation) or self.limits.of_machine(situation)
            if why is not None:
                raise InputError(f"attention is {self.name!r}, which {why}: use 'auto', 'sdpa' or 'eager'")
            self.make_ready()
        return self

    def settled(self, situation: Situation) -> "AttentionFunction":
        """Itself, tried out.

        Raises:
            InputError: it cannot be used there, or fails.
        """
        self.used(situation)
        if situation.device.type != "cpu":
            try_out(self, situation)
        return self


class AttentionChoice(Protocol):
    """An attention function, or what chooses one."""

    @property
    def name(self) -> str:
        """What settings call it."""

    def used(self, situation: Situation) -> AttentionFunction:
        """The function for one call."""

    def settled(self, situation: Situation) -> "AttentionChoice":
        """What to use from now on in calls like this one, checked; may take a while."""


def try_out(function: AttentionFunction, s: Situation) -> None:
    """Compute something small, forward and backward.

    Raises:
        InputError: it fails.
    """
    length = min(s.queries, 128)
    q, k, v = (
        torch.zeros(1, heads, length, s.d_head, dtype=s.dtype, device=s.device, requires_grad=s.gradients)
        for heads in (s.heads, s.kv_heads, s.kv_heads)
    )
    documents = torch.zeros(1, length, dtype=torch.long, device=s.device) if s.documents else None
    try:
        mask = function.prepare(length, length, None, s.device, documents)
        y = function.compute(q, k, v, mask, 1.0, 0.0)
        if s.gradients:
            y.sum().backward()
    except (RuntimeError, ImportError) as error:
        told = " ".join(str(error).split())[:300]
        raise InputError(f"attention is {function.name!r}, which fails here ({told}): use 'auto', 'sdpa' or 'eager'") from error


# What the kernels of the flash family have in common.
ON_GPU_IN_HALF = Limits(devices=("cuda",), half_on=("cuda",), d_head_on={"cuda": (8, 256)})


def each_query_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H_kv, S, D) repeated for each query head, (B, H, S, D)."""
    group = q.shape[1] // k.shape[1]
    return k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
