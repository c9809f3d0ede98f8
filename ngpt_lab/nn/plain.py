"""Parts of the ordinary transformer that more than one page uses."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.slots import MLP, Dims, LMHead, QKNorm, Value

Activation = Callable[[Tensor], Tensor]


class _SquaredReLU(torch.autograd.Function):
    """Keeps max(x, 0) alone for the backward pass, and stays in bfloat16 under autocast, which would widen a power."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0) squared (arXiv 2109.08668).

    It has a gradient, and no second one outside of a compiled graph.
    """
    if torch.compiler.is_compiling():  # which fuses all of it by itself
        return F.relu(x).square()
    squared: Tensor = _SquaredReLU.apply(x)
    return squared


class NoQKNorm(QKNorm):
    """Queries and keys as they are, softmax scale 1/sqrt(d_head)."""

    def __init__(self, dims: Dims, layer: int) -> None:
        super().__init__()
        self.softmax_scale = dims.d_head**-0.5

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """See `QKNorm`."""
        return q, k


class OwnValue(Value):
    """Each layer attends to its own values."""

    def __init__(self, dims: Dims, layer: int) -> None:
        super().__init__()

    def forward(self, v: Tensor, first: Tensor) -> Tensor:
        """See `Value`."""
        return v


class UngatedMLP(MLP):
    """down(activation(up(x))), the squared ReLU by default (arXiv 2402.16819).

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        activation: a function of the hidden channels.
        bias: whether both matrices have one.
    """

    def __init__(self, dims: Dims, layer: int, activation: Activation = squared_relu, bias: bool = False) -> None:
        super().__init__()
        self.activation = activation
        self.up = ReadLinear(dims.d_model, dims.d_ff, bias)
        self.down = WriteLinear(dims.d_ff, dims.d_model, bias)

    def forward(self, x: Tensor) -> Tensor:
        """See `MLP`."""
        return self.down(self.activation(self.up(x)))


class PlainLogits(LMHead):
    """Logits are the products of the stream with each token's output embedding.

    Args:
        dims: the decoder's sizes.
        embedding: the input embedding's weight (V, C).
        tied: use that weight as the output embedding too.
    """

    def __init__(self, dims: Dims, embedding: nn.Parameter, tied: bool = False) -> None:
        super().__init__()
        self.matrix = ReadLinear(dims.d_model, dims.vocab_size)
        if tied:
            self.matrix.weight = embedding

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `LMHead`."""
        return x, self.matrix.used

    def logits(self, x: Tensor) -> Tensor:
        """See `LMHead`."""
        return self.matrix(x)
