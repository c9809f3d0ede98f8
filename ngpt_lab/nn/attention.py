"""Attention: three functions of one signature, chosen by name, and the sublayer around them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.slots import Dims, QKNormFactory, ValueFactory

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """torch's fused attention. q (B, H, T, D), k and v (B, H_kv, S, D), mask (B or 1, 1, T, S).

    A mask of None means causal where T is S, and where T is 1 that the one query sees all.
    """
    grouped, causal = q.shape[1] != k.shape[1], mask is None and q.shape[-2] > 1
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """The formula, step by step; the shapes of `sdpa`."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    if mask is None:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(k.shape[-2] - q.shape[-2])
    scores = (q @ k.transpose(-1, -2)) * scale
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return F.dropout(weights, dropout) @ v


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """torch's FlexAttention; the shapes of `sdpa`.

    Raises:
        InputError: on a CPU with gradients, or with dropout: FlexAttention has neither.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # slow to import

    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        raise InputError("attention 'flex' cannot train on a CPU: torch has no backward for it there; use 'sdpa' or 'eager'")
    if dropout:
        raise InputError(f"attention 'flex' has no dropout, and attention_dropout is {dropout}: use 'sdpa' or 'eager'")

    def allowed(b: Tensor, _h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return i + k.shape[-2] - q.shape[-2] >= j if mask is None else mask[b if mask.shape[0] > 1 else 0, 0, i, j]

    batch = None if mask is None or mask.shape[0] == 1 else q.shape[0]
    block_mask = create_block_mask(allowed, batch, None, q.shape[-2], k.shape[-2], device=q.device.type)
    out = flex_attention(q, k, v, block_mask=block_mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return out if isinstance(out, Tensor) else out[0]


ATTENTION: dict[str, Attend] = {"sdpa": sdpa, "eager": eager, "flex": flex}


def attention_named(name: str) -> Attend:
    """The attention function called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ATTENTION:
        raise InputError(f"attention is {name!r}: choose one of {', '.join(ATTENTION)}")
    return ATTENTION[name]


class Cache(Protocol):
    """Keys and values of the positions already seen: Hugging Face's own protocol."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append (B, H_kv, T, D) keys and values of a layer; returns all of that layer's, (B, H_kv, S, D)."""
        ...

    def get_seq_length(self) -> int:
        """How many positions it holds."""
        ...


class GrowingCache:
    """A cache that concatenates."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """See `Cache`."""
        if layer_idx in self._layers:
            keys, values = self._layers[layer_idx]
            key_states, value_states = torch.cat((keys, key_states), dim=-2), torch.cat((values, value_states), dim=-2)
        self._layers[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """See `Cache`."""
        return self._layers[0][0].shape[-2] if self._layers else 0


def causal_mask(
    queries: int, keys: int, attention_mask: Tensor | None, device: torch.device, documents: Tensor | None = None
) -> Tensor | None:
    """Which of the `keys` each of the last `queries` positions may see, (B or 1, 1, T, S); None where `Attend` needs none.

    A position sees those of its own document alone where `documents` (B, S) says which that is, and of them those that
    `attention_mask` (B, S) does not hide. One that would see nothing sees itself: a row with nothing to see would be NaN, and
    NaN spreads through a weight of zero.
    """
    if attention_mask is None and documents is None and queries in (1, keys):
        return None
    at = torch.arange(keys - queries, keys, device=device)[:, None]
    seen = torch.arange(keys, device=device)[None, :]
    mask = (seen <= at)[None, None]
    if documents is not None:
        mask = mask & (documents[:, None, keys - queries :, None] == documents[:, None, None, :])
    if attention_mask is None:
        return mask
    mask = mask & attention_mask.bool()[:, None, None, :]
    return mask | (seen == at)[None, None] & ~mask.any(dim=-1, keepdim=True)


def positions_within(documents: Tensor) -> Tensor:
    """How many tokens of its document stand before each token, (B, T); a document is a run of equal ids (B, T)."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    return at - at.where(begins, 0).cummax(dim=1).values


@dataclass(frozen=True)
class Context:
    """What all layers of one call share; a mask of None means causal."""

    rotate: Callable[[Tensor], Tensor]
    mask: Tensor | None
    cache: Cache | None
    attend: Attend


class Attention(nn.Module):
    """Causal self-attention with grouped queries; what is done to q, k and v are parts."""

    def __init__(self, dims: Dims, layer: int, qk_norm: QKNormFactory, value: ValueFactory, bias: bool, dropout: float) -> None:
        super().__init__()
        self.layer, self.d_head, self.dropout = layer, dims.d_head, dropout
        self.q = ReadLinear(dims.d_model, dims.n_heads * dims.d_head, bias)
        self.k = ReadLinear(dims.d_model, dims.n_kv_heads * dims.d_head, bias)
        self.v = ReadLinear(dims.d_model, dims.n_kv_heads * dims.d_head, bias)
        self.out = WriteLinear(dims.n_heads * dims.d_head, dims.d_model, bias)
        self.qk_norm, self.value = qk_norm(dims, layer), value(dims, layer)

    def forward(self, x: Tensor, context: Context, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """The stream (B, T, C) to the sublayer's output (B, T, C) and this layer's own values (B, H_kv, T, D)."""
        q, k, own = (p(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2) for p in (self.q, self.k, self.v))
        v = self.value(own, own if first is None else first)
        q, k = self.qk_norm(context.rotate(q), context.rotate(k))
        q, k = q.to(v.dtype), k.to(v.dtype)
        if context.cache is not None:
            k, v = context.cache.update(k, v, self.layer)
        dropout = self.dropout if self.training else 0.0
        y = context.attend(q, k, v, context.mask, self.qk_norm.softmax_scale, dropout)
        return self.out(y.transpose(1, 2).flatten(-2)), own
