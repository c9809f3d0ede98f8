"""The geometry of the unit hypersphere, and the one home of its precision.

Every norm is computed in float32 or wider, whatever dtype comes in: autocast would leave `vector_norm` in bfloat16. A norm is
clamped at the root of the dtype's smallest normal number, below which it cannot be computed; that leaves the bits of any other
vector alone and keeps zero at zero.
"""

from typing import Any

import torch
from torch import Tensor

WIDE = (torch.float32, torch.float64)

# Entries of each vector that a CPU takes at a time where they do not lie side by side: their squares stay in its cache.
ENTRIES = 128


def widen(x: Tensor) -> Tensor:
    """`x` in float32, or in its own dtype if that is wider."""
    return x if x.dtype in WIDE else x.to(torch.promote_types(x.dtype, torch.float32))


def length(x: Tensor, dim: int = -1, eps: float = 0.0) -> Tensor:
    """The L2 norm of `x` along `dim`, kept as a dimension of size one; `eps` is added to it."""
    if x.device.type == "cpu" and dim not in (-1, x.dim() - 1) and not torch.compiler.is_compiling():
        # Along any dimension but the last, torch's own norm goes through a CPU's memory in strides, and is slower.
        first, *others = x.split(ENTRIES, dim)
        squares = first.square()
        for some in others:
            squares.narrow(dim, 0, some.shape[dim]).addcmul_(some, some)
        norm = squares.sum(dim=dim, keepdim=True).sqrt_()
    else:
        norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    norm = norm.clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    return norm + eps if eps else norm


class _Unit(torch.autograd.Function):
    """`x / (||x|| + eps)`; torch's own backward of the three operations goes over the vectors more often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, eps: float) -> Tensor:
        wide = widen(x)
        norm = length(wide, dim)
        total = norm + eps if eps else norm
        u = wide / total
        ctx.save_for_backward(u, norm, total)
        ctx.dim, ctx.dtype = dim, x.dtype
        return u

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        u, norm, total = ctx.saved_tensors
        # Along x the length takes back what the direction gains: u (u . grad), but for what eps adds to the length.
        along = (u * grad).sum(dim=ctx.dim, keepdim=True)
        if total is not norm:
            along = along * (total / norm)
        return torch.addcmul(grad, u, along, value=-1).div_(total).to(ctx.dtype), None, None


def unit(x: Tensor, dim: int = -1, eps: float = 0.0) -> Tensor:
    """`x` scaled to length one along `dim` (paper: Norm), in float32 or wider; with `eps`, `x / (||x|| + eps)`.

    It has a gradient, and no second one.
    """
    unit_of: Tensor = _Unit.apply(x, dim, eps)
    return unit_of


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The straight line from `a` to `b` at `t` (paper eq. 10 and 11, before the outer Norm); `a` is used as it comes."""
    return torch.lerp(a, b, t.to(a.dtype))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The great circle from `a` to `b` at `t` (paper eq. 6); both are brought to unit length first.

    Where the two (nearly) coincide or oppose each other the circle is not defined by them, and the straight line is taken.
    """
    a, b = unit(a), unit(b)
    cosine = (a * b).sum(dim=-1, keepdim=True)
    degenerate = cosine.abs() > 1 - 8 * torch.finfo(a.dtype).eps
    angle = torch.acos(torch.where(degenerate, torch.zeros_like(cosine), cosine))
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
    return torch.where(degenerate, lerp(a, b, t), arc)


def riemannian(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """A step from `a` along the tangent that points to `b` (paper appendix A.3): `a - t (a (a.b) - b)`."""
    a = unit(a)
    return a - t * (a * (a * b).sum(dim=-1, keepdim=True) - b)
