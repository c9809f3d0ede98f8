"""Attention: the sublayer, its caches, and what all layers of one call share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ngpt_lab.nn.attend_function import Attend
from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.recomputed import recomputed
from ngpt_lab.nn.slots import Dims, QKNormFactory, ValueFactory


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


@dataclass(frozen=True)
class Context:
    """What all layers of one call share; the mask is whatever `attend` takes for one, None means causal."""

    rotate: Callable[[Tensor], Tensor]
    mask: Any
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
        q, k = recomputed(self.aligned, q, k, context.rotate)
        if context.cache is not None:
            k, v = context.cache.update(k, v, self.layer)
        dropout = self.dropout if self.training else 0.0
        y = context.attend(q, k, v, context.mask, self.qk_norm.softmax_scale, dropout)
        return self.out(y.transpose(1, 2).flatten(-2)), own

    def aligned(self, q: Tensor, k: Tensor, rotate: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, D) and keys (B, H_kv, T, D) rotated and normed, in the dtype they came in."""
        dtype = q.dtype
        q, k = self.qk_norm(rotate(q), rotate(k))
        return q.to(dtype), k.to(dtype)
