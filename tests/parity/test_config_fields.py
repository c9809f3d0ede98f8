"""Every field of a reference's config is honoured, refused by name, or known to be bookkeeping."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from transformers import NemotronConfig
from transformers.activations import ACT2FN

from ngpt_lab.errors import InputError
from ngpt_lab.interop import import_weights, reference_names
from ngpt_lab.interop.hf_config import ACTIVATIONS
from ngpt_lab.interop.references import REFERENCES

# For each kind a golden file, and for each field that says something: another value, and what becomes of it.
# logits: they change. fit: the tensors no longer fit. training, start: the logits change in training, the fresh start does.
# cancels: a scale changes, and the norm behind it takes the change out again.
# Anything else is what a refusal says.
HF = {
    "model_type": ("llama", "model_type is 'llama'"),
    "vocab_size": (99, "fit"),
    "hidden_size": (99, "fit"),
    "intermediate_size": (99, "fit"),
    "num_hidden_layers": (1, "fit"),
    "num_attention_heads": (6, "fit"),
    "num_key_value_heads": (4, "fit"),
    "head_dim": (10, "fit"),
    "hidden_act": ("gelu", "logits"),
    "rope_scaling": ({"rope_type": "linear", "factor": 2.0}, "rope_scaling is"),
    "attention_bias": (True, "fit"),
    "attention_dropout": (0.5, "training"),
    "mlp_bias": (True, "fit"),
    "tie_word_embeddings": (True, "fit"),
    "pruned_heads": ({"0": [1]}, "pruned_heads is"),
}
FIELDS = {
    ("hf-nemotron", "r3_nemotron_lm_b_gqa_fullrot"): {
        **HF,
        "initializer_range": (0.5, "start"),
        "norm_eps": (0.1, "logits"),
        "rope_parameters": ({"rope_theta": 77.0, "partial_rotary_factor": 0.5}, "logits"),
        "rope_theta": (77.0, "rope_theta is 77.0"),  # against rope_parameters
        "partial_rotary_factor": (0.25, "partial_rotary_factor is 0.25"),
    },
    ("hf-ngpt", "r1_ngpt_hf_c_mqa_silu_offsphere"): {  # with relu2 the scale before it nearly cancels
        **HF,
        "initializer_range": (0.5, "logits"),
        "rope_parameters": ({"rope_theta": 77.0}, "rope_theta is"),  # against the top level
        "rope_theta": (77.0, "logits"),
        "partial_rotary_factor": (0.25, "logits"),
        "sqk_init_value": (2.5, "logits"),
        "attn_alpha_init_value": (0.5, "logits"),
        "mlp_alpha_init_value": (0.5, "logits"),
        "suv_init_value": (2.5, "logits"),
        "suv_init_scaling": (2.5, "logits"),
        "sz_init_value": (2.5, "logits"),
    },
    ("nvidia-ngpt", "r2_nvidia_b_rotation"): {
        "vocab_size": (99, "fit"),
        "n_layer": (1, "fit"),
        "n_head": (3, "logits"),
        "n_embd": (24, "fit"),
        "base_scale": (0.5, "logits"),
        "use_nGPT": (0, "use_nGPT is 0"),
        "dropout": (0.1, "dropout is 0.1"),
        "bias": (True, "fit"),
    },
    ("lucidrains-ngpt", "r4_lucid_b_valueres"): {
        "num_tokens": (99, "fit"),
        "dim": (16, "fit"),
        "depth": (2, "fit"),
        "dim_head": (7, "dim_head is 7"),
        "heads": (3, "fit"),
        "attn_norm_qk": (False, "logits"),
        "ff_expand_factor": (4.0, "fit"),
        "manual_norm_weights": (False, "fit"),
        "tied_embedding": (True, "fit"),
        "num_hyperspheres": (2, "num_hyperspheres is 2"),
        "causal": (False, "causal is False"),
        "add_value_residual": (False, "logits"),
        "norm_eps": (0.05, "norm_eps is 0.05"),
        "alpha_init": (0.9, "logits"),
        "s_logit_init": (2.0, "logits"),
        "s_logit_scale": (2.0, "logits"),
        **{
            f"{scale}_{end}": ([1.5, 0.5, 2.0], "logits")
            for scale in ("alpha_attn", "alpha_ff", "s_qk", "s_ff_gate")
            for end in ("init", "scale")
        },
        "s_ff_hidden_init": (1.5, "cancels"),
        "s_ff_hidden_scale": (1.5, "cancels"),
    },
}
CASES = [(kind, stem, name, *case) for (kind, stem), fields in FIELDS.items() for name, case in fields.items()]


def test_the_cases_are_all_the_fields():
    for (kind, _), fields in FIELDS.items():
        for reference in REFERENCES[kind].values():
            assert set(fields) == set(reference.defaults)


@pytest.mark.parametrize(("kind", "stem", "name", "value", "outcome"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_every_field_is_honoured_or_refused_by_name(golden_named, kind, stem, name, value, outcome):
    golden = golden_named(stem)
    weights, config = golden.below("param."), {**golden.config, name: value}
    if outcome in ("logits", "training", "start", "cancels"):
        decoder = import_weights(kind, weights, config)
        off = (decoder(golden["input_ids"]) - golden["logits"]).abs().max() / golden["logits"].abs().max()
        assert (off > 1e-7) == (outcome in ("logits", "training"))
        assert outcome != "start" or decoder.initializer_range == value
        assert outcome != "cancels" or decoder.blocks[0].mlp.s_u.gain == (1.5 if name.endswith("init") else 1 / 1.5)
        if outcome == "training":
            golden.assert_close("logits", decoder.eval()(golden["input_ids"]))
    else:
        with pytest.raises(InputError) as refused:
            import_weights(kind, weights, config)
        assert ("does not fit its config" if outcome == "fit" else f"{kind} config: {outcome}") in str(refused.value)


@pytest.mark.parametrize(("kind", "stem"), FIELDS)
def test_a_field_nobody_knows_is_refused_by_name(golden_named, kind, stem):
    golden = golden_named(stem)
    with pytest.raises(InputError, match="qk_layernorm is not known"):
        import_weights(kind, golden.below("param."), {**golden.config, "qk_layernorm": True})


REFUSED = [
    ("hf-nemotron", {"hidden_act": "xielu"}, "hidden_act is 'xielu'"),
    ("hf-nemotron", {"num_key_value_heads": None}, "num_key_value_heads is None"),
    ("hf-nemotron", {"norm_eps": "small"}, "norm_eps is 'small'"),
    ("hf-nemotron", {"attention_bias": "no"}, "attention_bias is 'no'"),
    ("hf-nemotron", {"attention_dropout": 1.0}, "attention_dropout is 1.0"),
    ("hf-nemotron", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn'"),
    ("hf-nemotron", {"rope_parameters": {"rope_type": "default", "factor": 4.0}}, "factor cannot be honoured"),
    ("hf-nemotron", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.5}}, "it is 1.5 in effect"),
    ("hf-nemotron", {"rope_parameters": {"rope_theta": -1.0}}, "it is -1.0 in effect"),
    ("hf-nemotron", {"quantization_config": {"bits": 4}}, "quantization_config is not known"),
    ("hf-ngpt", {"initializer_range": 0}, "initializer_range is 0"),
    ("hf-ngpt", {"sz_init_value": math.nan}, "sz_init_value is nan"),
    ("hf-ngpt", {"head_dim": 0}, "head_dim is 0"),
    ("nvidia-ngpt", {"n_head": 5}, "n_head is 5"),
    ("nvidia-ngpt", {"base_scale": 0.0}, "base_scale is 0.0"),
    ("lucidrains-ngpt", {"s_qk_init": [1.0, 2.0]}, "s_qk_init is [1.0, 2.0]"),
    ("lucidrains-ngpt", {"alpha_init": [1.0, 2.0, 3.0]}, "alpha_init is [1.0, 2.0, 3.0]"),
    ("lucidrains-ngpt", {"s_ff_gate_scale": 0}, "s_ff_gate_scale is 0"),
    ("lucidrains-ngpt", {"s_logit_scale": 0}, "s_logit_scale is 0"),
]


@pytest.mark.parametrize(("kind", "change", "said"), REFUSED, ids=[f"{kind}: {said}" for kind, _, said in REFUSED])
def test_a_value_that_makes_no_sense_is_refused_by_name(golden_named, kind, change, said):
    golden = golden_named(next(stem for known, stem in FIELDS if known == kind))
    with pytest.raises(InputError) as refused:
        reference_names(kind, {**golden.config, **change})
    assert said in str(refused.value)


def test_a_field_without_a_default_must_be_there(golden_named):
    for (kind, stem), missing in zip(FIELDS, ["num_key_value_heads", None, None, "depth"], strict=True):
        config = {name: value for name, value in golden_named(stem).config.items() if name != missing}
        if missing:
            with pytest.raises(InputError, match=f"{missing} is missing"):
                reference_names(kind, config)


def test_both_spellings_of_the_rope_fields_are_one_function(golden_named):
    for stem in ("r3_nemotron_lm_c_mqa_hd12", "r1_ngpt_hf_b_gqa_partial"):
        golden = golden_named(stem)
        said = {"rope_theta": 1e4, "partial_rotary_factor": 0.5}
        bare = {name: value for name, value in golden.config.items() if not name.startswith(("rope", "partial"))}
        for spelling in (said, {"rope_parameters": said}, {"rope_scaling": {"type": "default"}, **said}):
            decoder = import_weights(golden.kind, golden.below("param."), {**bare, **spelling})
            golden.assert_close("logits", decoder(golden["input_ids"]))


def test_rope_fields_left_out_are_each_class_s_own_defaults(golden_named):
    for stem, theta, share in (("r3_nemotron_lm_a_mha", 1e4, 0.5), ("r1_ngpt_hf_a_mha", 1e6, 1.0)):
        golden = golden_named(stem)
        bare = {name: value for name, value in golden.config.items() if not name.startswith(("rope", "partial"))}
        rotary = import_weights(golden.kind, golden.below("param."), bare).rotary
        assert (rotary.theta, rotary.channels) == (theta, int(share * golden.config["head_dim"]))


def test_every_field_transformers_writes_for_nemotron_is_known():
    written = NemotronConfig(num_key_value_heads=8, dtype="bfloat16", pad_token_id=0).to_dict()
    names = reference_names("hf-nemotron", written).theirs
    assert names["blocks.31.mlp.down.weight"] == "model.layers.31.mlp.down_proj.weight"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_one_transformers_means(name):
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    assert torch.allclose(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=0, atol=1e-12)


def test_nvidia_s_biases_are_added_before_the_scale(golden_named):
    golden = golden_named("r2_nvidia_b_rotation")
    weights = golden.below("param.")
    matrices = {name: t for name, t in weights.items() if name.startswith("transformer.h.") and name.endswith(".weight")}
    biases = {f"{name[:-6]}bias": torch.randn(len(t), dtype=t.dtype) for name, t in matrices.items()}
    biased = {**weights, **biases}
    decoder = import_weights("nvidia-ngpt", biased, {**golden.config, "bias": True})
    x, w = torch.randn(3, 12, dtype=torch.float64), {n.removeprefix("transformer.h.1."): t for n, t in biased.items()}
    u, v = (w["suv"] * 12**0.5 * F.linear(x, w["c_fc.weight"], w["c_fc.bias"])).chunk(2, dim=-1)
    by_hand = F.linear(u * F.silu(v), w["mlp_c_proj.weight"], w["mlp_c_proj.bias"])
    assert torch.allclose(decoder.blocks[1].mlp(x), by_hand, rtol=0, atol=1e-10)
    assert all(getattr(decoder.blocks[0].attention, name).bias is not None for name in ("q", "k", "v", "out"))


def test_the_small_library_s_scales_are_stored_times_init_over_scale_in_each_layer(golden_named):
    golden = golden_named("r4_lucid_b_valueres")
    starts = {"s_ff_gate_init": [1.0, 2.0, 3.0], "s_ff_gate_scale": [0.1, None, 0.3], "alpha_attn_init": 0.7}
    decoder = import_weights(golden.kind, golden.below("param."), {**golden.config, **starts})
    for i, (gate, gain) in enumerate(zip((10.0, 2.0, 10.0), (0.7 * 14**0.5,) * 3, strict=True)):
        block = decoder.blocks[i]
        expected = golden[f"param.layers.{i}.1.fn.gate_scale.scale"] * gate
        assert torch.allclose(block.mlp.s_v(), expected, rtol=1e-14, atol=0)
        expected = golden[f"param.layers.{i}.0.branch_scale.scale"] * gain
        assert torch.allclose(block.attention_residual.alpha(), expected, rtol=1e-14, atol=0)


def test_the_small_library_s_weights_off_the_sphere_are_normalised_in_the_forward_pass(golden_named):
    for stem in ("r4_lucid_a_plain", "r4_lucid_c_valueres_noqknorm_tied"):
        golden = golden_named(stem)
        inputs = {name: t for name, t in golden.below("param.").items() if name.endswith("linear.weight")}
        off_sphere = golden.below("param.")
        for name, t in inputs.items():
            dim = 0 if "to_out" in name else 1
            del off_sphere[name]
            factor = torch.rand(t.shape[1 - dim], dtype=t.dtype).add(0.5).unsqueeze(dim)
            off_sphere[name.replace("linear.weight", "linear.parametrizations.weight.original")] = t * factor
        decoder = import_weights(golden.kind, off_sphere, {**golden.config, "manual_norm_weights": False})
        golden.assert_close("logits", decoder(golden["input_ids"]))


def test_layers_differ_in_name_by_their_number_alone(golden_named):
    for kind, stem in FIELDS:
        theirs = reference_names(kind, golden_named(stem).config).theirs
        for lower, upper in pairwise(range(2)):
            blocks = [
                {n.replace(f"blocks.{i}.", ""): t for n, t in theirs.items() if f"blocks.{i}." in n} for i in (lower, upper)
            ]
            assert {n: t.replace(f".{lower}.", f".{upper}.", 1) for n, t in blocks[0].items()} == blocks[1]
