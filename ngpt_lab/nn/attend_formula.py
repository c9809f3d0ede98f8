"""Attention by its formula, for every device and dtype."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.nn.attend_function import AttentionFunction, own_name


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """The formula, step by step; see `Attend`. The mask is (B or 1, 1, T, S), true where a key is seen."""
    (batch, heads, queries, channels), (_, kv_heads, keys, _) = q.shape, k.shape
    # The query heads that share a key head are rows of one product, so that no key is copied.
    rows, shared = (batch * kv_heads, heads // kv_heads * queries, channels), (batch * kv_heads, keys, channels)
    q, k, v = q.reshape(rows), k.reshape(shared), v.reshape(shared)
    # Scaled and masked by the product itself: scores are as large as all else together, and each pass over them counts.
    scores = torch.baddbmm(unseen(queries, keys, mask, heads, kv_heads, q), q, k.transpose(1, 2), alpha=scale)
    weights = F.dropout(scores.softmax(dim=-1).to(v.dtype), dropout)
    return torch.bmm(weights, v).view(batch, heads, queries, channels)


def unseen(queries: int, keys: int, mask: Tensor | None, heads: int, kv_heads: int, like: Tensor) -> Tensor:
    """What scores (B * H_kv, H / H_kv * T, S) are raised by: 0, and minus infinity for unseen keys; the first may be 1."""
    if mask is None:
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=like.device).tril(keys - queries)
    added = torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, float("-inf"))
    copies = heads if mask.shape[0] > 1 else heads // kv_heads  # one for all rows is never written out
    return added.expand(-1, copies, -1, -1).reshape(-1, heads // kv_heads * queries, keys)


EAGER = AttentionFunction("eager", eager, partial(own_name, "formula"))
