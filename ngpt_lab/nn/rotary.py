"""Rotary position embedding over a fraction of each head (arXiv 2104.09864)."""

from typing import Any

import torch
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.nn.slots import Dims, Rotary


class HalfRotary(Rotary):
    """Channel i turns with channel i + r/2, for the first r = fraction * d_head channels; the rest pass.

    Angles are made in float32 on the fly whatever the model's dtype, as the released models do.

    Args:
        dims: the decoder's sizes.
        fraction: share of each head's channels that turn.
        theta: base of the frequencies.

    Raises:
        InputError: a fraction that leaves a channel without a partner.
    """

    def __init__(self, dims: Dims, fraction: float = 1.0, theta: float = 10000.0) -> None:
        super().__init__()
        self.channels = int(dims.d_head * fraction)
        if not 0 <= fraction <= 1 or self.channels + self.channels % 2 > dims.d_head:
            raise InputError(
                f"rotary fraction {fraction} turns no whole pairs of a head of dims.d_head ({dims.d_head}) channels: "
                "choose an even d_head and a fraction from 0 to 1"
            )
        self.theta = theta

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B or 1, 1, T, r/2) in float32."""
        exponent = torch.arange(0, self.channels, 2, device=positions.device).float() / max(self.channels, 1)
        angle = positions[:, None, :, None].float() * (1 / self.theta**exponent)
        return cosine_and_sine(angle)

    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """(B, H, T, D) to (B, H, T, D) in the wider of its own dtype and float32; the table gets no gradient."""
        turned: Tensor = _Turn.apply(x, *table)
        return turned


class _Turn(torch.autograd.Function):
    """Heads turned; the gradient is turned back, where autograd would take the channels' parts one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.dtype = x.dtype
        return _turned(x, cosine, sine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(grad, cosine, -sine).to(ctx.dtype), None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = cosine.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine, rest), dim=-1)


def cosine_and_sine(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of angles in radians, both of the angles' shape and dtype.

    Where a step is compiled they are, to the last bit, what they are where it is not.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return _cosine_and_sine(angle)
    return angle.cos(), angle.sin()


# A compiler's own cosine may differ in float32's last digit, and all that comes after is then 1e-9 off in float64 as well.
@torch.library.custom_op("ngpt_lab::cosine_and_sine", mutates_args=())
def _cosine_and_sine(angle: Tensor) -> tuple[Tensor, Tensor]:
    return angle.cos(), angle.sin()


@_cosine_and_sine.register_fake
def _two_alike(angle: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(angle), torch.empty_like(angle)
