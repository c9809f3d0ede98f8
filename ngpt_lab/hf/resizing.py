"""A vocabulary of another size, and another matrix for one of the same size."""

from typing import Any

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.nn.scale import Scale
from ngpt_lab.sphere import unit, widen


@torch.no_grad()
def resized_rows(weight: nn.Parameter, size: int, at_mean: bool) -> nn.Parameter:
    """A matrix (V, C) with `size` rows: the first ones as they were, new ones of length one.

    New rows point where the old ones do on average if `at_mean`, else anywhere.
    """
    old, added = weight[:size], max(size - weight.shape[0], 0)
    shape = added, weight.shape[1]
    new = widen(weight).mean(dim=0).expand(shape) if at_mean else torch.randn(shape, device=weight.device)
    return like(weight, torch.cat((old, unit(new).to(weight.dtype))))


@torch.no_grad()
def resized_scale(scale: Scale, size: int, at_mean: bool) -> nn.Parameter:
    """The stored entries of `scale` with `size` of them, new ones at the old ones' mean if `at_mean`, else as at step 0."""
    old, added = scale.stored[:size], max(size - scale.stored.numel(), 0)
    start = float(scale.stored.mean()) if at_mean else scale.stored_init
    return like(scale.stored, torch.cat((old, old.new_full((added,), start))))


def like(parameter: nn.Parameter, values: Tensor) -> nn.Parameter:
    """`values` as a parameter that learns if `parameter` does."""
    return nn.Parameter(values.clone(), parameter.requires_grad)


def fitting_weight(module: Any, shape: torch.Size) -> nn.Parameter:
    """The matrix of another output embedding, which must have this one's shape (V, C).

    Raises:
        InputError: it has none, one of another shape, or a bias.
    """
    weight = getattr(module, "weight", None)
    if weight is None:
        raise InputError(f"output embeddings: {type(module).__name__} has no weight: give a module with one of {tuple(shape)}")
    if weight.shape != shape:
        raise InputError(
            f"output embeddings: the weight is {tuple(weight.shape)}, and this model's is {tuple(shape)}: give one of that "
            "shape, or change the vocabulary with resize_token_embeddings first"
        )
    if getattr(module, "bias", None) is not None:
        raise InputError("output embeddings: there is a bias, which this model's head has no place for: give a module without")
    return weight
