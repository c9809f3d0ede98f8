"""Attention by the formula, behind transformers' attention interface."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.sphere import widen


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend step by step, and show the weights.

    Args:
        module: whose attention it is.
        query: (B, H, T, D).
        key: (B, H_kv, S, D).
        value: (B, H_kv, S, D).
        attention_mask: added to the scores, or true where a key may be seen; (B or 1, 1, T, S), None for all.
        scaling: of the scores.
        dropout: share of the weights dropped.

    Returns:
        The output (B, T, H, D) and the weights (B, H, T, S).
    """
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = widen(query @ key.transpose(-1, -2)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(scores.softmax(dim=-1).to(value.dtype), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights
