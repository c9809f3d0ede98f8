"""Rotation of neighbouring channels, as two of the references pair them."""

import torch
from torch import Tensor


def rotate_pairs(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Heads (B, H, T, D) with channels 2i and 2i+1 turned by the angles (B or 1, 1, T, n), i below n; the rest pass."""
    turning, rest = x[..., : 2 * cosine.shape[-1]], x[..., 2 * cosine.shape[-1] :]
    a, b = turning[..., ::2], turning[..., 1::2]
    turned = torch.stack((a * cosine - b * sine, b * cosine + a * sine), dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1)
