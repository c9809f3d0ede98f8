"""Attention by its formula for a block of queries at a time, against the keys up to the block's last.

Half of the scores are never formed. The gradients by keys and values are sums over the blocks that saw them: matrix products
add to them as they go, where autograd would fill up each block's share with zeros and add the shares.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.nn.attend_formula import unseen
from ngpt_lab.nn.attend_function import AttentionFunction, own_name


def blocked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """See `Attend`. The mask is (B or 1, 1, T, S), true where a key is seen."""
    if torch.is_autocast_enabled(q.device.type):
        # What it would do within the products, of which the gradients here would not know.
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) if x.dtype == torch.float32 else x for x in (q, k, v))
    (batch, heads, queries, channels), (_, kv_heads, keys, _) = q.shape, k.shape
    # A compiled graph is made for a number of blocks, whatever their length: few numbers, few graphs.
    blocks = 8 if queries >= 1024 else 4 if queries >= 512 else 2 if queries >= 256 else 1
    size, past = -(-queries // blocks), keys - queries
    hidden = []
    for number in range(blocks):
        first, last = number * size, min((number + 1) * size, queries)
        rows = None if mask is None else mask[..., first:last, : past + last]
        hidden.append(unseen(last - first, past + last, rows, heads, kv_heads, q))
    q = q.reshape(batch * kv_heads, heads // kv_heads, queries, channels)
    k, v = k.reshape(batch * kv_heads, keys, channels), v.reshape(batch * kv_heads, keys, channels)
    weights = [F.dropout(scores.softmax(dim=-1).to(v.dtype), dropout) for scores in _Scores.apply(q, k, hidden, scale)]
    averages = _Averages.apply(v, *weights)
    return torch.cat([y.view(batch, heads, y.shape[1] * kv_heads // heads, channels) for y in averages], dim=2)


# In the following N is B * H_kv and G is H / H_kv, the query heads that share a key head: rows of one product, so that no key
# is copied. A block has R of the T queries, and sees E of the S keys; the last block sees all.


class _Scores(torch.autograd.Function):
    """Queries (N, G, T, D) and keys (N, S, D) to each block's scores (N, G * R, E), raised by `hidden`, alike or (1, ...)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, hidden: list[Tensor], scale: float) -> tuple[Tensor, ...]:
        ctx.save_for_backward(q, k)
        ctx.scale = scale
        rows = [added.shape[1] // q.shape[1] for added in hidden]
        return tuple(
            torch.baddbmm(added, asked, k[:, : added.shape[2]].transpose(1, 2), alpha=scale)
            for added, asked in zip(hidden, _by_block(q, rows), strict=True)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return *_by_queries_and_keys(list(grads), *ctx.saved_tensors, ctx.scale), None, None


class _Averages(torch.autograd.Function):
    """Values (N, S, D) and each block's weights (N, G * R, E) to each block's outputs (N, G * R, D).

    Without gradients torch's compiler forgets `ctx` where as many arguments are given as there are parameters, the starred one
    and `ctx` among them: here that would be at three blocks, which there never are.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        weights = (first, *others)
        ctx.save_for_backward(v, *weights)
        return tuple(torch.bmm(some, v[:, : some.shape[2]]) for some in weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        v, *weights = ctx.saved_tensors
        by_weights = (torch.bmm(grad, v[:, : some.shape[2]].transpose(1, 2)) for grad, some in zip(grads, weights, strict=True))
        return _by_values(weights, list(grads)), *by_weights


def _by_block(q: Tensor, rows: list[int]) -> list[Tensor]:
    """Queries (N, G, T, D) as blocks (N, G * R, D)."""
    return [some.flatten(1, 2) for some in q.split(rows, dim=2)]


def _summed_products(left: list[Tensor], right: list[Tensor], scale: float) -> Tensor:
    """The sum over blocks of scale * left^T right, (N, S, D); of (N, G * R, E) and (N, G * R, D)."""
    total = right[-1].new_empty(right[-1].shape[0], left[-1].shape[2], right[-1].shape[2])
    kept = 0  # of what the new total holds
    for a, b in zip(reversed(left), reversed(right), strict=True):
        total[:, : a.shape[2]].baddbmm_(a.transpose(1, 2), b, beta=kept, alpha=scale)
        kept = 1
    return total


# Operators of their own: a compiler would turn what is written in place into masked sums of padded tensors.
@torch.library.custom_op("ngpt_lab::by_values", mutates_args=())
def _by_values(weights: list[Tensor], grads: list[Tensor]) -> Tensor:
    return _summed_products(weights, grads, 1.0)


@_by_values.register_fake
def _like_values(weights: list[Tensor], grads: list[Tensor]) -> Tensor:
    return grads[-1].new_empty(grads[-1].shape[0], weights[-1].shape[2], grads[-1].shape[2])


@torch.library.custom_op("ngpt_lab::by_queries_and_keys", mutates_args=())
def _by_queries_and_keys(grads: list[Tensor], q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    rows, by_queries = [grad.shape[1] // q.shape[1] for grad in grads], torch.empty_like(q)
    for grad, some in zip(grads, by_queries.split(rows, dim=2), strict=True):
        torch.mul(torch.bmm(grad, k[:, : grad.shape[2]]).view(some.shape), scale, out=some)
    return by_queries, _summed_products(grads, _by_block(q, rows), scale)


@_by_queries_and_keys.register_fake
def _like_queries_and_keys(grads: list[Tensor], q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), k.new_empty(k.shape)


BLOCKED = AttentionFunction("blocked", blocked, partial(own_name, "formula in blocks"))
