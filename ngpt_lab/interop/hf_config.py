"""What the configs of the two Hugging Face references share."""

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.interop.fields import Fields
from ngpt_lab.nn.plain import Activation, squared_relu
from ngpt_lab.nn.rotary import HalfRotary
from ngpt_lab.nn.slots import Dims


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return F.gelu(x, approximate="tanh")


# Hugging Face's names; of two names of one function the first is written.
ACTIVATIONS: dict[str, Activation] = {
    "relu2": squared_relu,
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "mish": F.mish,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
}

# Fields of `PretrainedConfig` (4.x and 5.x) and of heads that do not enter the logits. max_position_embeddings bounds nothing
# where rope is not scaled; pad_token_id only withholds a gradient from the pad row of the embedding, which here learns like any
# other row.
_BOOKKEEPING = """
    _attn_implementation _commit_hash _name_or_path add_cross_attention architectures attn_implementation auto_map
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout cls_token_id
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id hidden_dropout id2label is_decoder is_encoder_decoder label2id length_penalty mask_token_id max_length
    max_position_embeddings min_length no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences
    output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    unk_token_id use_bfloat16 use_cache
"""
BOOKKEEPING = frozenset(_BOOKKEEPING.split())

ROPE_FIELDS = ("rope_parameters", "rope_scaling")


def sizes(fields: Fields) -> Dims:
    """The decoder's sizes; a head_dim of null is hidden_size / num_attention_heads."""
    d_model, n_heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    return Dims(
        vocab_size=fields.whole("vocab_size"),
        d_model=d_model,
        n_layers=fields.whole("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=fields.whole("num_key_value_heads"),
        d_head=max(d_model // n_heads, 1) if fields.take("head_dim") is None else fields.whole("head_dim"),
        d_ff=fields.whole("intermediate_size"),
    )


def activation(fields: Fields) -> Activation:
    """The function that hidden_act names."""
    name = fields.take("hidden_act")
    if name not in ACTIVATIONS:
        raise fields.refusal("hidden_act", f"choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def dropout(fields: Fields) -> float:
    """The share of attention weights dropped in training."""
    share = fields.number("attention_dropout")
    if not 0 <= share < 1:
        raise fields.refusal("attention_dropout", "it must be at least 0 and below 1")
    return share


def rotary(fields: Fields, dims: Dims) -> Callable[[Dims], HalfRotary]:
    """The rotation, from rope_parameters (5.x), or rope_scaling and the top level (4.x)."""
    blocks = [_rope_block(fields, name) for name in ROPE_FIELDS]
    theta, fraction = (_rope_number(fields, blocks, name) for name in ("rope_theta", "partial_rotary_factor"))
    if theta <= 0:
        raise fields.refusal("rope_theta", f"it is {theta} in effect, and must be above 0")
    if not 0 <= fraction <= 1 or 2 * ceil(int(dims.d_head * fraction) / 2) > dims.d_head:
        raise fields.refusal(
            "partial_rotary_factor", f"it is {fraction} in effect, and turns no whole pairs of a head of {dims.d_head}"
        )
    return partial(HalfRotary, fraction=fraction, theta=theta)


def _rope_block(fields: Fields, name: str) -> Mapping[str, Any]:
    block = fields.take(name) or {}
    if not isinstance(block, Mapping):
        raise fields.refusal(name, "it must be a table or null")
    kind = block.get("rope_type", block.get("type", "default"))
    if kind != "default":
        raise fields.refusal(name, f"rope_type {kind!r} is not supported, only 'default'")
    unknown = sorted(set(block) - {"rope_type", "type", "rope_theta", "partial_rotary_factor"})
    if unknown:
        raise fields.refusal(name, f"{', '.join(unknown)} cannot be honoured, remove it")
    return block


def _rope_number(fields: Fields, blocks: list[Mapping[str, Any]], name: str) -> float:
    top = fields.number(name) if fields.given(name) is not None else None
    said = {float(value) for value in (top, *(block.get(name) for block in blocks)) if value is not None}
    if len(said) > 1:
        raise fields.refusal(name, f"but {' or '.join(ROPE_FIELDS)} says otherwise ({sorted(said)}): keep one")
    return said.pop() if said else fields.default(name)
