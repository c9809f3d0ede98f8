"""torch's FlexAttention, which skips what no query of a block sees."""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.nn.attend_function import AttentionFunction, Limits, own_name
from ngpt_lab.nn.masks import first_of_document, positions_within

BLOCK = 128


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, dropout: float) -> Tensor:
    """torch's FlexAttention; see `Attend`. The mask is that of `block_mask`."""
    return kernel_for(q)(q, k, v, block_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


def kernel_for(q: Tensor) -> Any:
    """The function to call: outside of a compiled graph, a GPU has only the unfused one, so it gets a graph of its own."""
    from torch.nn.attention.flex_attention import flex_attention  # slow to import

    return compiled_flex() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention


@cache
def compiled_flex() -> Any:
    """FlexAttention as a graph of its own."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def block_mask(
    queries: int, keys: int, attention_mask: Tensor | None, device: torch.device, documents: Tensor | None = None
) -> Any:
    """`causal_mask` as FlexAttention wants it: which blocks of keys a block of queries sees, and a rule within blocks.

    Made of blocks alone, at 1/128^2 of the whole mask's size: the documents of a row are runs, so the first and last
    position of a block tell which of them it holds.
    """
    from torch.nn.attention.flex_attention import BlockMask

    past = keys - queries
    run = None if documents is None else first_of_document(documents).cumsum(dim=1)
    visible = None if attention_mask is None else attention_mask.bool()
    alone = None if visible is None else sees_nothing(visible, documents)

    def allowed(b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = i + past >= j
        if run is not None:
            seen = seen & (run[b, i + past] == run[b, j])
        if visible is not None and alone is not None:
            seen = seen & visible[b, j] | (i + past == j) & alone[b, j]
        return seen

    some, whole = blocks_seen(queries, keys, visible, run, device)
    return BlockMask.from_kv_blocks(
        *in_order(some), *in_order(whole), BLOCK_SIZE=BLOCK, mask_mod=allowed, seq_lengths=(queries, keys)
    )


def blocks_seen(
    queries: int, keys: int, visible: Tensor | None, run: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which blocks of keys hold a key that a query of a block may see, and which are seen whole; (B or 1, 1, rows, columns).

    The former leave out those of the latter.
    """
    first_q, last_q = (edge[:, None] for edge in edges(keys - queries, keys, device))
    first_k, last_k = (edge[None, :] for edge in edges(0, keys, device))
    full_size = (last_q - first_q == BLOCK - 1) & (last_k - first_k == BLOCK - 1)
    some, whole = (first_k <= last_q)[None], ((last_k <= first_q) & full_size)[None]
    if run is not None:
        some = some & (run[:, last_k] >= run[:, first_q])
        whole = whole & (run[:, first_k] == run[:, last_q])
    if visible is not None:
        counted = F.pad(visible.cumsum(dim=1), (1, 0))
        within = counted[:, last_k + 1] - counted[:, first_k]
        some = some & ((within > 0) | (last_k >= first_q))  # a query that sees nothing sees itself
        whole = whole & (within == BLOCK)
    return (some & ~whole)[:, None], whole[:, None]


def edges(start: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first and last positions of the blocks from `start` to `end`."""
    first = torch.arange(start, end, BLOCK, device=device)
    return first, (first + BLOCK - 1).clamp_max(end - 1)


def in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of a row are true, and all of the row, the true ones first; int32."""
    return blocks.sum(dim=-1).int(), blocks.int().argsort(dim=-1, descending=True, stable=True).int()


def sees_nothing(visible: Tensor, documents: Tensor | None) -> Tensor:
    """Which positions see none of those up to themselves, in their document, that hold a token; (B, S)."""
    counted = visible.cumsum(dim=1)
    if documents is None:
        return counted == 0
    begins = torch.arange(visible.shape[1], device=visible.device) - positions_within(documents)
    return counted == F.pad(counted, (1, 0)).gather(1, begins)


FLEX = AttentionFunction(
    "flex",
    flex,
    partial(own_name, "flex_attention"),
    block_mask,
    Limits(no_dropout_on=("cpu", "cuda"), no_gradients_on=("cpu",), d_head_on={"cuda": (16, 2**31)}),
)
