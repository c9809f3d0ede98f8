"""Hugging Face's NGPTForCausalLM, the pull request behind Normalized-Nemotron-8B.

Its initializer_range and *_init_value enter the forward pass: a scale is used at stored * init_value / initializer_range.
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor

from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.hf_config import BOOKKEEPING, activation, dropout, rotary, sizes
from ngpt_lab.interop.target import Exported, Target
from ngpt_lab.interop.tensors import Reference, named
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.ngpt import NGPT, ScaledLogits, ScaledUngatedMLP, SphereResidual, UnitQKNorm
from ngpt_lab.nn.norm import NoFinal
from ngpt_lab.nn.scale import Scale, absolute
from ngpt_lab.sphere import lerp

KIND = "hf-ngpt"

# Added to the length of the MLP's output before dividing by it; attention's has none.
MLP_EPS = 1e-6

DEFAULTS = {
    "model_type": "ngpt",
    "vocab_size": 131072,
    "hidden_size": 4096,
    "intermediate_size": 21504,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "relu2",
    "initializer_range": 0.014,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 1e6,
    "partial_rotary_factor": 1.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "sqk_init_value": 1.0,
    "attn_alpha_init_value": 0.05,
    "mlp_alpha_init_value": 0.05,
    "suv_init_value": 1.0,
    "suv_init_scaling": 1.0,
    "sz_init_value": 1.0,
    "pruned_heads": {},
}

NAMES = {
    "embedding": "model.embed_tokens",
    "blocks.{}.attention.q": "model.layers.{}.self_attn.q_proj",
    "blocks.{}.attention.k": "model.layers.{}.self_attn.k_proj",
    "blocks.{}.attention.v": "model.layers.{}.self_attn.v_proj",
    "blocks.{}.attention.out": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.attention.qk_norm.s_qk.stored": "model.layers.{}.self_attn.sqk.weight",
    "blocks.{}.attention_residual.alpha.stored": "model.layers.{}.attn_alpha",
    "blocks.{}.mlp.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.mlp.down": "model.layers.{}.mlp.down_proj",
    "blocks.{}.mlp.s_u.stored": "model.layers.{}.mlp.suv.weight",
    "blocks.{}.mlp_residual.alpha.stored": "model.layers.{}.mlp_alpha",
    "lm_head.matrix": "lm_head",
    "lm_head.s_z.stored": "sz.weight",
}

# What it stores as [n, 1].
COLUMNS = (".sqk.weight", ".suv.weight", "sz.weight")


def build(fields: Fields) -> NGPT:
    """The decoder of an NGPTConfig."""
    fields.only("model_type", "ngpt", "under this kind")
    fields.only("pruned_heads", {}, "pruned heads have no place")
    dims, stored = sizes(fields), fields.positive("initializer_range")
    attn_alpha, mlp_alpha = fields.number("attn_alpha_init_value"), fields.number("mlp_alpha_init_value")
    tied, s_z = fields.flag("tie_word_embeddings"), fields.number("sz_init_value")
    return NGPT(
        dims,
        attention_residual=partial(SphereResidual, init=attn_alpha, stored_init=stored),
        mlp_residual=partial(SphereResidual, init=mlp_alpha, stored_init=stored, eps=MLP_EPS),
        qk_norm=partial(UnitQKNorm, init=fields.number("sqk_init_value"), stored_init=stored),
        mlp=partial(
            ScaledUngatedMLP,
            activation=activation(fields),
            bias=fields.flag("mlp_bias"),
            init=fields.number("suv_init_value"),
            stored_init=fields.positive("suv_init_scaling"),
        ),
        rotary=rotary(fields, dims),
        lm_head=partial(ScaledLogits, tied=tied, init=s_z, stored_init=stored),
        attention_bias=fields.flag("attention_bias"),
        attention_dropout=dropout(fields),
        initializer_range=stored,
    )


def names(decoder: Decoder) -> dict[str, str]:
    """The reference's name of each parameter."""
    return named(decoder, NAMES)


def export(target: Target) -> Exported:
    """The decoder as an NGPTForCausalLM."""
    attention = _residuals(target, "attention_residual", 0.0)
    mlp = _residuals(target, "mlp_residual", MLP_EPS)
    qk_norms, mlps = target.parts("attention.qk_norm", UnitQKNorm), target.parts("mlp", ScaledUngatedMLP)
    head = target.part("lm_head", ScaledLogits)
    target.part("final", NoFinal)
    stored = head.s_z.stored_init
    scales = {
        "sqk": Starts.of([part.s_qk for part in qk_norms], stored),
        "attn_alpha": Starts.of([part.alpha for part in attention], stored),
        "mlp_alpha": Starts.of([part.alpha for part in mlp], stored),
        "suv": Starts.of([part.s_u for part in mlps], mlps[0].s_u.stored_init),
        "sz": Starts.of([head.s_z], stored),
    }
    config = {
        "model_type": "ngpt",
        "architectures": ["NGPTForCausalLM"],
        **target.shared_config(),
        "hidden_act": target.activation(part.activation for part in mlps),
        "mlp_bias": target.agreed("mlp.bias", [part.up.bias is not None for part in mlps]),
        "tie_word_embeddings": target.tied(head.matrix),
        "initializer_range": stored,
        "suv_init_scaling": scales["suv"].stored_init,
        **{f"{name}_init_value": starts.init for name, starts in scales.items()},
    }
    return Exported(_tensors(target.decoder, list(scales.values())), config)


def _residuals(target: Target, slot: str, eps: float) -> list[SphereResidual]:
    residuals = target.parts(slot, SphereResidual)
    for residual in residuals:
        target.must(f"{slot}.path", residual.path, lerp)
        target.must(f"{slot}.sign", residual.sign, absolute)
        target.must(f"{slot}.eps", residual.eps, eps)
    return residuals


class Starts(NamedTuple):
    """The one start a config holds for the scales of all layers.

    Args:
        scales: one per layer.
        init: the used value at step 0; where layers differ, the one farthest from zero.
        stored_init: the stored value at step 0.
    """

    scales: list[Scale]
    init: float
    stored_init: float

    @classmethod
    def of(cls, scales: list[Scale], stored_init: float) -> "Starts":
        """What the config says of `scales`."""
        return cls(scales, max((scale.init for scale in scales), key=abs), stored_init)

    def stored(self, scale: Scale, size: int) -> Tensor:
        """What to store (size,) for the target to use the values that `scale` does; the same bits where the starts agree."""
        gain = self.init / self.stored_init
        factor = 1.0 if scale.gain == gain else scale.gain / gain
        return (scale.stored.detach() * factor).expand(size).contiguous()


def _tensors(decoder: Decoder, starts: list[Starts]) -> dict[str, Tensor]:
    dims, theirs = decoder.dims, names(decoder)
    sizes = {"stream": dims.d_model, "hidden": dims.d_ff, "heads": dims.n_heads * dims.d_head, "vocab": dims.vocab_size}
    stored = {id(scale.stored): start.stored(scale, sizes[scale.axis]) for start in starts for scale in start.scales}
    tensors = {theirs[name]: stored.get(id(p), p.detach()) for name, p in decoder.named_parameters()}
    return {name: tensor[:, None] if name.endswith(COLUMNS) else tensor for name, tensor in tensors.items()}


HF_NGPT = Reference(
    KIND,
    DEFAULTS,
    build,
    names,
    BOOKKEEPING,
    columns=COLUMNS,
    repeats={"lm_head.weight": "model.embed_tokens.weight"},
)
