"""A vocabulary of another size."""

import torch
from torch import Tensor, nn

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
