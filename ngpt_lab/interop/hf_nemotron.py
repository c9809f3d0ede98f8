"""Hugging Face's NemotronForCausalLM."""

from functools import partial
from typing import Any

from ngpt_lab.interop.fields import REQUIRED, Fields
from ngpt_lab.interop.hf_config import BOOKKEEPING, activation, dropout, rotary, sizes
from ngpt_lab.interop.target import Exported, Target
from ngpt_lab.interop.tensors import Reference, named
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.nemotron import LayerNormResidual, Nemotron
from ngpt_lab.nn.norm import LayerNorm1p
from ngpt_lab.nn.plain import NoQKNorm, PlainLogits, UngatedMLP

KIND = "hf-nemotron"

# num_key_value_heads: the class's own default is null, which it cannot build.
DEFAULTS = {
    "model_type": "nemotron",
    "vocab_size": 256000,
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "num_key_value_heads": REQUIRED,
    "head_dim": None,
    "hidden_act": "relu2",
    "initializer_range": 0.0134,
    "norm_eps": 1e-5,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "pruned_heads": {},
}

NAMES = {
    "embedding": "model.embed_tokens",
    "blocks.{}.attention_residual.norm": "model.layers.{}.input_layernorm",
    "blocks.{}.attention.q": "model.layers.{}.self_attn.q_proj",
    "blocks.{}.attention.k": "model.layers.{}.self_attn.k_proj",
    "blocks.{}.attention.v": "model.layers.{}.self_attn.v_proj",
    "blocks.{}.attention.out": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.mlp_residual.norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.mlp.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.mlp.down": "model.layers.{}.mlp.down_proj",
    "final": "model.norm",
    "lm_head.matrix": "lm_head",
}


def decoder_arguments(fields: Fields) -> dict[str, Any]:
    """What a NemotronConfig says of the arguments of `Nemotron`."""
    fields.only("model_type", "nemotron", "under this kind")
    fields.only("pruned_heads", {}, "pruned heads have no place")
    dims, eps = sizes(fields), fields.positive("norm_eps")
    return {
        "dims": dims,
        "attention_residual": partial(LayerNormResidual, eps=eps),
        "mlp_residual": partial(LayerNormResidual, eps=eps),
        "mlp": partial(UngatedMLP, activation=activation(fields), bias=fields.flag("mlp_bias")),
        "rotary": rotary(fields, dims),
        "final": partial(LayerNorm1p, eps=eps),
        "lm_head": partial(PlainLogits, tied=fields.flag("tie_word_embeddings")),
        "attention_bias": fields.flag("attention_bias"),
        "attention_dropout": dropout(fields),
        "initializer_range": fields.positive("initializer_range"),
    }


def build(fields: Fields) -> Nemotron:
    """The decoder of a NemotronConfig."""
    return Nemotron(**decoder_arguments(fields))


def names(decoder: Decoder) -> dict[str, str]:
    """The reference's name of each parameter."""
    return named(decoder, NAMES)


def export(target: Target) -> Exported:
    """The decoder as a NemotronForCausalLM."""
    residuals = [r for slot in ("attention_residual", "mlp_residual") for r in target.parts(slot, LayerNormResidual)]
    norms = [*(r.norm for r in residuals), target.part("final", LayerNorm1p)]
    mlps, head = target.parts("mlp", UngatedMLP), target.part("lm_head", PlainLogits)
    target.parts("attention.qk_norm", NoQKNorm)
    config = {
        "model_type": "nemotron",
        "architectures": ["NemotronForCausalLM"],
        **target.shared_config(),
        "hidden_act": target.activation(m.activation for m in mlps),
        "mlp_bias": target.agreed("mlp.bias", [m.up.bias is not None for m in mlps]),
        "norm_eps": target.agreed("norm.eps", [n.eps for n in norms]),
        "tie_word_embeddings": target.tied(head.matrix),
        "initializer_range": target.decoder.initializer_range,
    }
    parameters = dict(target.decoder.named_parameters())
    return Exported({theirs: parameters[ours].detach() for ours, theirs in names(target.decoder).items()}, config)


HF_NEMOTRON = Reference(KIND, DEFAULTS, build, names, BOOKKEEPING, repeats={"lm_head.weight": "model.embed_tokens.weight"})
