"""Hugging Face's NGPTForCausalLM, the pull request behind Normalized-Nemotron-8B.

Its initializer_range and *_init_value enter the forward pass: a scale is used at stored * init_value / initializer_range.
"""

from functools import partial
from typing import Any

from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.hf_config import BOOKKEEPING, activation, dropout, rotary, sizes
from ngpt_lab.interop.tensors import Reference, named
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.ngpt import NGPT, ScaledLogits, ScaledUngatedMLP, SphereResidual, UnitQKNorm
from ngpt_lab.nn.slots import LMHeadFactory

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


def head(fields: Fields) -> LMHeadFactory:
    """The language-model head of an NGPTConfig."""
    tied, s_z = fields.flag("tie_word_embeddings"), fields.number("sz_init_value")
    return partial(ScaledLogits, tied=tied, init=s_z, stored_init=fields.positive("initializer_range"))


def decoder_arguments(fields: Fields) -> dict[str, Any]:
    """What an NGPTConfig says of the arguments of `NGPT`."""
    fields.only("model_type", "ngpt", "under this kind")
    fields.only("pruned_heads", {}, "pruned heads have no place")
    dims, stored = sizes(fields), fields.positive("initializer_range")
    attn_alpha, mlp_alpha = fields.number("attn_alpha_init_value"), fields.number("mlp_alpha_init_value")
    return {
        "dims": dims,
        "attention_residual": partial(SphereResidual, init=attn_alpha, stored_init=stored),
        "mlp_residual": partial(SphereResidual, init=mlp_alpha, stored_init=stored, eps=MLP_EPS),
        "qk_norm": partial(UnitQKNorm, init=fields.number("sqk_init_value"), stored_init=stored),
        "mlp": partial(
            ScaledUngatedMLP,
            activation=activation(fields),
            bias=fields.flag("mlp_bias"),
            init=fields.number("suv_init_value"),
            stored_init=fields.positive("suv_init_scaling"),
        ),
        "rotary": rotary(fields, dims),
        "lm_head": head(fields),
        "attention_bias": fields.flag("attention_bias"),
        "attention_dropout": dropout(fields),
        "initializer_range": stored,
    }


def build(fields: Fields, lm_head: LMHeadFactory | None = None) -> NGPT:
    """The decoder of an NGPTConfig; `lm_head` in place of its own head where given."""
    arguments = decoder_arguments(fields)
    return NGPT(**arguments if lm_head is None else {**arguments, "lm_head": lm_head})


def names(decoder: Decoder) -> dict[str, str]:
    """The reference's name of each parameter."""
    return named(decoder, NAMES)


HF_NGPT = Reference(
    KIND,
    DEFAULTS,
    build,
    names,
    BOOKKEEPING,
    columns=COLUMNS,
    repeats={"lm_head.weight": "model.embed_tokens.weight"},
)
