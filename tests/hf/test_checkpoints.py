"""What is written and read: the reference's keys and shapes, whichever class writes and whichever reads."""

import json

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from ngpt_lab.hf import (
    NGPTConfig,
    NGPTForCausalLM,
    NGPTForQuestionAnswering,
    NGPTForSequenceClassification,
    NGPTForTokenClassification,
    NGPTModel,
)
from ngpt_lab.hf.modeling import register
from ngpt_lab.interop import export_weights, import_weights

HEADS = {
    NGPTForSequenceClassification: {"score.weight"},
    NGPTForTokenClassification: {"score.weight", "score.bias"},
    NGPTForQuestionAnswering: {"qa_outputs.weight", "qa_outputs.bias"},
}
LM_HEAD = {"lm_head.weight", "sz.weight"}


def written(folder):
    return {name: t for shard in folder.glob("*.safetensors") for name, t in load_file(shard).items()}


def load(cls, folder, **settings):
    model, found = cls.from_pretrained(folder, output_loading_info=True, **settings)
    return model, {what: keys for what, keys in found.items() if keys}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_a_saved_model_has_the_files_names_shapes_and_bits(folder, tmp_path):
    model, _ = load(AutoModelForCausalLM, folder.path, dtype=torch.float64)
    model.save_pretrained(tmp_path / "one")
    assert same(written(tmp_path / "one"), folder.weights)
    model.save_pretrained(tmp_path / "many", max_shard_size="6KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    assert same(written(tmp_path / "many"), folder.weights)
    again, found = load(AutoModelForCausalLM, tmp_path / "many", dtype=torch.float64)
    assert not found
    assert same(again.state_dict(), model.state_dict())


def test_what_is_saved_is_what_our_own_exporter_writes(small_model, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    decoder = import_weights("hf-ngpt", written(tmp_path), config)
    assert same(export_weights(decoder, "hf-ngpt"), written(tmp_path))


class MyLM(NGPTForCausalLM):
    """A user's own."""


def test_a_class_made_of_ours_loads_and_saves_its_head_too(small_model, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path / "ours")
    made, found = load(MyLM, tmp_path / "ours", dtype=torch.float64)
    assert not found
    assert same(made.state_dict(), model.state_dict())
    made.save_pretrained(tmp_path / "made")
    assert same(written(tmp_path / "made"), written(tmp_path / "ours"))


def test_a_model_whose_class_is_exchanged_as_fsdp_does_is_saved_as_before(small_model, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path / "before")
    model.__class__ = type("FSDPNGPTForCausalLM", (NGPTForCausalLM,), {})
    model.save_pretrained(tmp_path / "after")
    assert same(written(tmp_path / "after"), written(tmp_path / "before"))


@pytest.mark.parametrize("cls", HEADS)
def test_a_head_finds_the_body_of_a_language_model_and_gives_it_back(small_model, tmp_path, cls):
    model = small_model()
    model.save_pretrained(tmp_path / "lm")
    head, found = load(cls, tmp_path / "lm", dtype=torch.float64)
    assert found == {"missing_keys": HEADS[cls], "unexpected_keys": LM_HEAD}
    assert all(p.isfinite().all() for p in head.parameters())
    head.save_pretrained(tmp_path / "head")
    body = {name for name in written(tmp_path / "lm") if name not in LM_HEAD}
    assert written(tmp_path / "head").keys() == body | HEADS[cls]
    again, found = load(cls, tmp_path / "head", dtype=torch.float64)
    assert not found
    assert same(again.state_dict(), head.state_dict())
    back, found = load(NGPTForCausalLM, tmp_path / "head", dtype=torch.float64)
    assert found == {"missing_keys": LM_HEAD, "unexpected_keys": HEADS[cls]}
    assert same(back.model.state_dict(), model.model.state_dict())
    assert (back.lm_head.s_z.stored == 0.1).all()
    back.save_pretrained(tmp_path / "back")
    assert written(tmp_path / "back").keys() == written(tmp_path / "lm").keys()


def test_the_model_alone_has_no_prefix_and_needs_none(small_model, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path / "lm")
    alone, found = load(AutoModel, tmp_path / "lm", dtype=torch.float64)
    assert type(alone) is NGPTModel
    assert found == {"unexpected_keys": LM_HEAD}
    alone.save_pretrained(tmp_path / "alone")
    names = {name.removeprefix("model.") for name in written(tmp_path / "lm") if name not in LM_HEAD}
    assert written(tmp_path / "alone").keys() == names
    assert load(NGPTModel, tmp_path / "alone")[1] == {}
    back, found = load(NGPTForCausalLM, tmp_path / "alone", dtype=torch.float64)
    assert found == {"missing_keys": LM_HEAD}
    assert same(back.model.state_dict(), model.model.state_dict())


def test_a_tied_model_is_saved_once_and_loaded_tied(small_model, tmp_path):
    model = small_model(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in written(tmp_path)
    again, found = load(AutoModelForCausalLM, tmp_path, dtype=torch.float64)
    assert not found
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert same(again.state_dict(), model.state_dict())


def test_missing_and_left_over_tensors_are_reported_by_the_files_names(small_model, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    tensors = written(tmp_path)
    tensors["model.layers.0.self_attn.more.weight"] = tensors.pop("model.layers.1.mlp.suv.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    again, found = load(NGPTForCausalLM, tmp_path)
    assert found["missing_keys"] == {"model.layers.1.mlp.suv.weight"}
    assert found["unexpected_keys"] == {"model.layers.0.self_attn.more.weight"}
    assert (again.model.decoder.blocks[1].mlp.s_u.stored == 1).all()


def test_a_missing_bias_leaves_its_matrix_as_it_was_loaded(small_model, tmp_path):
    model = small_model(mlp_bias=True)
    with torch.no_grad():
        model.model.decoder.blocks[0].mlp.up.weight *= 3  # off the sphere
    model.save_pretrained(tmp_path)
    tensors = written(tmp_path)
    del tensors["model.layers.0.mlp.up_proj.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    again, found = load(NGPTForCausalLM, tmp_path, dtype=torch.float64)
    assert found == {"missing_keys": {"model.layers.0.mlp.up_proj.bias"}}
    up = again.model.decoder.blocks[0].mlp.up
    assert torch.equal(up.weight, model.model.decoder.blocks[0].mlp.up.weight)
    assert not up.bias.any()


def test_a_tensor_of_another_shape_is_refused(small_model, tmp_path):
    small_model().save_pretrained(tmp_path)
    tensors = written(tmp_path)
    tensors["sz.weight"] = torch.ones(41, 2)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match="mismatch"):
        NGPTForCausalLM.from_pretrained(tmp_path)
    _, found = load(NGPTForCausalLM, tmp_path, ignore_mismatched_sizes=True)
    assert [name for name, *_ in found["mismatched_keys"]] == ["sz.weight"]


def test_a_saved_file_can_be_handed_to_load_state_dict(small_model, tmp_path):
    model, other = small_model(), small_model(sz_init_value=1.0)
    model.save_pretrained(tmp_path)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(written(tmp_path))
    assert same(other.state_dict(), model.state_dict())
    other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_eigen_learning_rates_stay_wide_under_half_precision_alone(small_model, tmp_path, dtype):
    small_model().save_pretrained(tmp_path)
    alpha = torch.promote_types(dtype, torch.float32)
    for model in (
        AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype),
        AutoModelForCausalLM.from_pretrained(tmp_path, torch_dtype=str(dtype)[6:]),
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path), dtype=dtype),
    ):
        kinds = {name: p.dtype for name, p in model.named_parameters()}
        assert {kind for name, kind in kinds.items() if "alpha" in name} == {alpha}
        assert {kind for name, kind in kinds.items() if "alpha" not in name} == {dtype}
        assert model.dtype == dtype


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_its_own_dtype_out_and_survives_a_round_trip(small_model, tmp_path, tokens, dtype):
    wide = small_model(dtype=torch.float32)
    wide.save_pretrained(tmp_path / "wide")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=dtype)
    out = model(tokens, output_hidden_states=True)
    assert {out.logits.dtype, *(h.dtype for h in out.hidden_states)} == {dtype}
    assert (out.logits - wide(tokens).logits).abs().max() < 0.02 * wide(tokens).logits.abs().max()
    model.save_pretrained(tmp_path / "half")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert again.dtype == dtype
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_usual_quickstart_places_the_model_itself(small_model, tmp_path, tokens, dtype):
    small_model(dtype=torch.float32).save_pretrained(tmp_path)
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, device_map="auto")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).to(placed.device)
    prompt = tokens.to(placed.device)
    ids = [m.generate(prompt, attention_mask=torch.ones_like(prompt), max_length=20, do_sample=False) for m in (placed, plain)]
    assert torch.equal(ids[0][:, :7], prompt)
    assert torch.equal(*ids)


@torch.no_grad()
def test_parts_on_disk_compute_the_same_and_are_saved_again(small_model, tmp_path, tokens):
    model = small_model()
    model.save_pretrained(tmp_path / "model")
    places = {"model.decoder.embedding": "cpu", "model.decoder.rotary": "cpu", "model.decoder.final": "cpu", "lm_head": "disk"}
    places |= {"model.decoder.blocks.0": "cpu", "model.decoder.blocks.1": "disk"}
    split = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float64, device_map=places, offload_folder=tmp_path / "offload"
    )
    assert torch.allclose(split(tokens).logits, model(tokens).logits, atol=1e-12)
    with pytest.warns(UserWarning, match="model with offloaded modules"):
        split.save_pretrained(tmp_path / "again")
    assert same(written(tmp_path / "again"), written(tmp_path / "model"))


def test_an_empty_model_takes_no_memory(small_config):
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(small_config())
    assert all(p.is_meta for p in model.parameters())


def test_a_head_is_found_by_its_auto_class(small_model, tmp_path):
    small_model(NGPTForSequenceClassification, num_labels=3).save_pretrained(tmp_path)
    model, found = load(AutoModelForSequenceClassification, tmp_path)
    assert type(model) is NGPTForSequenceClassification
    assert not found
    assert model.config.num_labels == 3


def test_registering_twice_is_harmless():
    register()
    register()
    assert AutoModel._model_mapping[NGPTConfig] is NGPTModel
