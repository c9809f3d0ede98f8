"""Which positions see which."""

import torch
from torch import Tensor
from torch.nn import functional as F


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


def first_of_document(documents: Tensor) -> Tensor:
    """Which tokens are the first of their document, (B, T); a document is a run of equal ids (B, T)."""
    return F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)


def positions_within(documents: Tensor) -> Tensor:
    """How many tokens of its document stand before each token, (B, T); a document is a run of equal ids (B, T)."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    return at - at.where(first_of_document(documents), 0).cummax(dim=1).values
