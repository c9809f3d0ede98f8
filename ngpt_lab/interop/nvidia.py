"""NVIDIA's own repository (github.com/NVIDIA/ngpt), use_nGPT=1: SwiGLU of one matrix, full rotation, untied."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.pairs import rotate_pairs
from ngpt_lab.interop.tensors import Reference, named
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.ngpt import NGPT, ScaledLogits, UnitQKNorm
from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.recomputed import recomputed
from ngpt_lab.nn.rotary import cosine_and_sine
from ngpt_lab.nn.scale import Scale, Setting, resolve
from ngpt_lab.nn.slots import MLP, Dims, Residual, Rotary
from ngpt_lab.sphere import lerp, unit

KIND = "nvidia-ngpt"

DEFAULTS = {
    "vocab_size": 50304,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 1024,
    "base_scale": 1024.0**-0.5,
    "use_nGPT": 0,
    "dropout": 0.0,
    "bias": False,
}

# The longest sequence it was trained on; nothing in the function knows it.
IGNORED = frozenset({"block_size"})

NAMES = {
    "embedding": "transformer.wte",
    "blocks.{}.attention.q": "transformer.h.{}.query",
    "blocks.{}.attention.k": "transformer.h.{}.key",
    "blocks.{}.attention.v": "transformer.h.{}.value",
    "blocks.{}.attention.out": "transformer.h.{}.att_c_proj",
    "blocks.{}.attention.qk_norm.s_qk.stored": "transformer.h.{}.sqk",
    "blocks.{}.attention_residual.alpha.stored": "transformer.h.{}.attn_alpha",
    "blocks.{}.mlp.up_gate": "transformer.h.{}.c_fc",
    "blocks.{}.mlp.down": "transformer.h.{}.mlp_c_proj",
    "blocks.{}.mlp.s_uv.stored": "transformer.h.{}.suv",
    "blocks.{}.mlp_residual.alpha.stored": "transformer.h.{}.mlp_alpha",
    "lm_head.matrix": "lm_head",
    "lm_head.s_z.stored": "sz",
}


class RenormalisingResidual(Residual):
    """x <- Norm(Norm(x) + |alpha| (Norm(y) - Norm(x))): the stream is brought to the sphere once more before each step.

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        init: alpha at the start.
        stored_init: what Adam sees at the start.
    """

    def __init__(self, dims: Dims, layer: int, init: Setting = 0.05, stored_init: Setting = "1/sqrt(d_model)") -> None:
        super().__init__()
        start = resolve(init, dims, layer), resolve(stored_init, dims, layer)
        self.alpha = Scale(dims.d_model, *start, "vector", "stream")

    def read(self, x: Tensor) -> Tensor:
        """The stream as it is."""
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Residual`."""
        return unit(recomputed(self.moved, x, y))

    def moved(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after its step and before it is brought back to the sphere, (..., d_model)."""
        return lerp(unit(x), unit(y), self.alpha().abs())


class OneMatrixSwiGLU(MLP):
    """down(u silu(v)), (u, v) = s_uv sqrt(d_model) (W x): both halves from one matrix, both scaled by the root.

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        bias: whether both matrices have one.
    """

    def __init__(self, dims: Dims, layer: int, bias: bool = False) -> None:
        super().__init__()
        self.root = dims.d_model**0.5
        self.up_gate = ReadLinear(dims.d_model, 2 * dims.d_ff, bias)
        self.down = WriteLinear(dims.d_ff, dims.d_model, bias)
        self.s_uv = Scale(2 * dims.d_ff, 1.0, 1.0, "vector", "hidden")

    def forward(self, x: Tensor) -> Tensor:
        """See `MLP`."""
        u, v = self.up_gate(x, self.s_uv() * self.root).chunk(2, dim=-1)
        return self.down(u * F.silu(v))


class InterleavedRotary(Rotary):
    """Channel 2i turns with channel 2i+1 by position * 10000^(-2i/d), the angles made in float32.

    Args:
        dims: the decoder's sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.d_head = dims.d_head

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B or 1, 1, T, d/2) in float32."""
        return cosine_and_sine(angles(positions, self.d_head))

    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """See `Rotary`."""
        return rotate_pairs(x, *table)


class LiteralRotary(Rotary):
    """What the repository computes (its issue 10), which is no rotation: for weights that were trained with it.

    Sines and cosines alternate in its table, of which it takes the first half of the columns for sines and the second for
    cosines; channel 2i becomes -x[2i+1] * cosine[i], channel 2i+1 becomes x[2i] * sine[i].

    Args:
        dims: the decoder's sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.d_head = dims.d_head

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What it takes for cosines and sines, (B or 1, 1, T, d/2) in float32."""
        angle = angles(positions, self.d_head)
        sines, cosines = torch.stack(cosine_and_sine(angle)[::-1], dim=-1).flatten(-2).chunk(2, dim=-1)
        return cosines, sines

    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """See `Rotary`."""
        cosine, sine = table
        return torch.stack((-x[..., 1::2] * cosine, x[..., ::2] * sine), dim=-1).flatten(-2)


def angles(positions: Tensor, d_head: int) -> Tensor:
    """position * 10000^(-2i/d) for positions (B or 1, T), as (B or 1, 1, T, d/2), by the repository's float32 recipe."""
    even = torch.arange(0, d_head, 2, device=positions.device).float()
    return positions[:, None, :, None].float() * torch.exp(even * (-math.log(10000.0) / d_head))


def build(fields: Fields, rotary: Callable[[Dims], Rotary]) -> NGPT:
    """The decoder of a GPTConfig."""
    fields.only("use_nGPT", 1, "the repository's baseline has no importer")
    fields.only("dropout", 0.0, "the repository declares it and never applies it")
    width, heads, stored = fields.whole("n_embd"), fields.whole("n_head"), fields.positive("base_scale")
    if width % (2 * heads):
        raise fields.refusal("n_head", f"n_embd ({width}) must split into heads of an even size")
    dims = Dims(fields.whole("vocab_size"), width, fields.whole("n_layer"), heads, heads, width // heads, 4 * width)
    bias = fields.flag("bias")
    return NGPT(
        dims,
        attention_residual=partial(RenormalisingResidual, stored_init=stored),
        mlp_residual=partial(RenormalisingResidual, stored_init=stored),
        qk_norm=partial(UnitQKNorm, stored_init=stored),
        mlp=partial(OneMatrixSwiGLU, bias=bias),
        rotary=rotary,
        lm_head=partial(ScaledLogits, init=1.0, stored_init=stored),
        attention_bias=bias,
        initializer_range=stored,
    )


def names(decoder: Decoder) -> dict[str, str]:
    """The reference's name of each parameter."""
    return named(decoder, NAMES)


# By what `rope` is called.
NVIDIA: Mapping[str, Reference] = {
    "rotation": Reference(KIND, DEFAULTS, partial(build, rotary=InterleavedRotary), names, IGNORED),
    "literal": Reference(KIND, DEFAULTS, partial(build, rotary=LiteralRotary), names, IGNORED),
}
