"""Activation checkpointing: which blocks compute their forward pass again in the backward pass instead of keeping it."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ngpt_lab.errors import InputError
from ngpt_lab.nn.product import OPERATOR

_aten = torch.ops.aten
# What takes most of the time: the matrix products and attention, in every back end.
COSTLY = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    OPERATOR,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_attention_math.default,
    torch.ops.higher_order.flex_attention,
]


class ActivationCheckpointing(ABC):
    """Carries blocks out, some of them so that they keep less for the backward pass; the numbers are the same.

    Args:
        every: which blocks: each `every`-th, from the first.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise InputError(f"activation_checkpointing.every is {every}: it must be at least 1, which is every block")
        self.every = every

    def __call__(self, block: Any, x: Tensor, context: Any, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `ngpt_lab.models.decoder.Block`; without gradients nothing is kept anyway."""
        if not torch.is_grad_enabled() or block.attention.layer % self.every:
            return block(x, context, first)
        return self.recomputed(block, x, context, first)

    @abstractmethod
    def recomputed(self, block: Any, x: Tensor, context: Any, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """A block carried out so that the backward pass repeats what was not kept of it."""


class FullCheckpointing(ActivationCheckpointing):
    """Keeps the stream in front of a block alone; a step computes the forward pass of such blocks twice."""

    def recomputed(self, block: Any, x: Tensor, context: Any, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `ActivationCheckpointing`."""
        return checkpoint(block, x, context, first, use_reentrant=False)


class SelectiveCheckpointing(ActivationCheckpointing):
    """Keeps what matrix products and attention return, and computes everything between them again."""

    def recomputed(self, block: Any, x: Tensor, context: Any, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `ActivationCheckpointing`."""
        return checkpoint(block, x, context, first, use_reentrant=False, context_fn=_keep_what_is_costly)


def _keep_what_is_costly() -> tuple[Any, Any]:
    return create_selective_checkpoint_contexts(COSTLY)
