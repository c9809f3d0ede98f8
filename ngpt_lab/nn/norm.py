"""The norms of the un-normalised baselines, always computed in float32 or wider."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.nn.shards import local
from ngpt_lab.nn.slots import Dims, Final
from ngpt_lab.sphere import widen


class LayerNorm1p(Final):
    """Layer norm with gain 1 + stored weight, stored 0 at the start, and a bias (arXiv 2402.16819).

    Args:
        dims: the decoder's sizes.
        eps: added to the variance.
    """

    def __init__(self, dims: Dims, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dims.d_model))
        self.bias = nn.Parameter(torch.empty(dims.d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain one, bias zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        x = widen(x)
        return F.layer_norm(x, self.weight.shape, local(self.weight).to(x.dtype) + 1, local(self.bias).to(x.dtype), self.eps)


class RMSNorm(Final):
    """Root-mean-square norm with a learned gain.

    Args:
        dims: the decoder's sizes.
        eps: added to the mean square.
    """

    def __init__(self, dims: Dims, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dims.d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gain one."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        x = widen(x)
        return F.rms_norm(x, self.weight.shape, local(self.weight).to(x.dtype), self.eps)


class NoFinal(Final):
    """The stream as it is: on the sphere it needs no last norm."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        return x
