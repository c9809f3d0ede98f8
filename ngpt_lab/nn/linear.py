"""Matrices that know which of their dimensions faces the residual stream: the one that nGPT keeps at unit length."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.nn.product import product
from ngpt_lab.nn.shards import local
from ngpt_lab.sphere import length, unit, widen

WeightMap = Callable[[Tensor, int], Tensor]


def as_stored(weight: Tensor, norm_dim: int) -> Tensor:
    """The weight itself."""
    return weight


def as_unit(weight: Tensor, norm_dim: int) -> Tensor:
    """The weight with unit vectors along `norm_dim`, made in every forward pass."""
    return unit(weight, norm_dim).to(weight.dtype)


class StreamMatrix(nn.Module):
    """A matrix with one side on the residual stream; `norm_dim` is that side's dimension in `weight` (out, in)."""

    norm_dim: int
    weight: nn.Parameter

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.used_as: WeightMap = as_stored
        self.std = columns**-0.5

    @property
    def used(self) -> Tensor:
        """The weight as the forward pass uses it."""
        return self.used_as(local(self.weight), self.norm_dim)

    def reset_parameters(self) -> None:
        """A normal of standard deviation `std`, cut at three of them."""
        nn.init.trunc_normal_(self.weight, std=self.std, a=-3 * self.std, b=3 * self.std)


class _Linear(StreamMatrix):
    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(outputs, inputs)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(..., in) to (..., out), in the weight's dtype (or autocast's); `scale` (out,) or (1,) multiplies the output.

        Where there are more tokens than inputs the scale is folded into the matrix, (W x) * s = (diag(s) W) x: that costs
        in * out operations, not tokens * out.
        """
        weight: Tensor = self.used
        bias: Tensor | None = None if self.bias is None else local(self.bias)
        if scale is None:
            return product(x, weight, bias)
        if x.numel() < x.shape[-1] ** 2:
            y = product(x, weight, bias)
            return (y * scale).to(y.dtype)
        weight = (weight * scale[:, None]).to(weight.dtype)
        bias = None if bias is None else (bias * scale).to(bias.dtype)
        return product(x, weight, bias)


class ReadLinear(_Linear):
    """Reads from the stream: each row, an output unit, is a vector of the stream's width."""

    norm_dim = 1


class WriteLinear(_Linear):
    """Writes to the stream: each column, an input unit, is a vector of the stream's width."""

    norm_dim = 0


class TokenEmbedding(StreamMatrix):
    """A vector of the stream's width for each token id."""

    norm_dim = 1

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size, d_model)
        self.std = d_model**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) to the stream (B, T, C) in float32 or wider."""
        return widen(F.embedding(tokens, self.used))


def stream_matrices(module: nn.Module) -> Iterator[tuple[str, StreamMatrix]]:
    """Every matrix of `module` that faces the stream, with its name; a matrix whose weight is shared comes once."""
    seen: set[int] = set()
    for name, part in module.named_modules():
        if isinstance(part, StreamMatrix) and id(part.weight) not in seen:
            seen.add(id(part.weight))
            yield name, part


@torch.no_grad()
def project(module: nn.Module) -> None:
    """Put every stream matrix of `module` back on the sphere, in place (paper section 2.6, step 2)."""
    for _, matrix in stream_matrices(module):
        weight = matrix.weight
        torch.mul(weight, length(widen(weight), matrix.norm_dim).reciprocal_(), out=weight)


@torch.no_grad()
def weight_error(module: nn.Module) -> float:
    """The largest departure from length one over all stream matrices' vectors as they are used, measured in float64."""
    # On the CPU, since not every device has float64.
    used = [(m.used.cpu().double(), m.norm_dim) for _, m in stream_matrices(module)]
    errors = [(torch.linalg.vector_norm(weight, dim=dim) - 1).abs().max() for weight, dim in used]
    return float(torch.stack(errors).max())
