"""The config: Hugging Face's names and the 8B's values."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, NemotronConfig

from ngpt_lab.errors import InputError
from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM, NGPTModel
from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.hf_config import BOOKKEEPING
from ngpt_lab.interop.hf_ngpt import DEFAULTS, KIND, build


def test_the_defaults_are_those_of_the_8b():
    config = NGPTConfig()
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (131072, 4096, 21504)
    for name, default in DEFAULTS.items():
        if name not in ("rope_parameters", "rope_scaling", "pruned_heads"):
            assert getattr(config, name) == default, name
    assert config.max_position_embeddings == 8192


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 500.0, "partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
        {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"rope_scaling": {"type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
        {"rope_scaling": None, "rope_theta": 500, "partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_theta": 500.0}, "rope_scaling": {"type": "default", "partial_rotary_factor": 0.5}},
        {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": None}, "partial_rotary_factor": 0.5},
    ],
)
def test_every_spelling_of_the_rope_is_read_and_both_are_written(small_config, tmp_path, rope):
    config = small_config(**rope)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for said in (saved, saved["rope_parameters"]):
        assert (said["rope_theta"], said["partial_rotary_factor"]) == (500, 0.5)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is NGPTConfig
    assert again.to_dict() == {**config.to_dict(), "_name_or_path": again.name_or_path}
    rotary = NGPTModel(config).decoder.rotary
    assert (rotary.theta, rotary.channels) == (500, 3)


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"type": "default", "partial_rotary_factor": 0.5}}, (5.0, 3)),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"rope_theta": 1.0}}, "refused"),
        ({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}}, "refused"),
        ({"rope_scaling": {"type": "linear", "rope_type": "default"}}, (1e6, 6)),
        ({"rope_scaling": {"rope_theta": None}, "rope_theta": 5.0}, (5.0, 6)),
        ({"rope_scaling": "default"}, "refused"),
    ],
)
def test_a_folder_is_read_as_the_importer_reads_it(small_config, tmp_path, rope, expected):
    said = {**small_config().to_dict(), "rope_parameters": None, "rope_theta": None, "partial_rotary_factor": None, **rope}
    (tmp_path / "config.json").write_text(json.dumps(said, default=str))
    made = []
    for read in (
        lambda: build(Fields(KIND, said, DEFAULTS, BOOKKEEPING)),
        lambda: AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).model.decoder,
    ):
        try:
            rotary = read().rotary
            made.append((rotary.theta, rotary.channels))
        except InputError:
            made.append("refused")
    assert made == [expected, expected]


def test_the_rope_can_be_set_afterwards(small_config):
    config = small_config()
    config.rope_theta, config.partial_rotary_factor = 77.0, 0.5
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5}
    assert NGPTModel(config).decoder.rotary.theta == 77.0
    config.rope_parameters = {"rope_type": "default", "rope_theta": 9.0}
    assert (config.to_dict()["rope_theta"], config.to_dict()["partial_rotary_factor"]) == (9.0, 1.0)
    assert NGPTModel(config).decoder.rotary.theta == 9.0


def test_two_values_for_one_of_the_ropes_fields_are_refused(small_config):
    with pytest.raises(InputError, match=r"rope_theta is 500.0, but rope_parameters says 100.0: keep one"):
        small_config(rope_theta=500.0, rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    with pytest.raises(InputError, match=r"rope_theta is 500.0, but rope_scaling says 100.0: keep one"):
        small_config(rope_parameters={"rope_theta": 500.0}, rope_scaling={"rope_theta": 100.0})


def test_a_rope_that_is_no_table_is_refused(small_config):
    with pytest.raises(InputError, match="rope_scaling is 'default': it must be a table or null"):
        small_config(rope_scaling="default")


def test_a_heads_size_follows_from_the_others_and_no_heads_are_refused(small_config):
    assert small_config(head_dim=None).head_dim == 4
    with pytest.raises(InputError, match="num_attention_heads is 0: it must be a whole number of at least 1"):
        NGPTModel(small_config(head_dim=None, num_attention_heads=0))


def test_a_rope_that_cannot_be_honoured_is_refused(small_config):
    config = small_config(rope_scaling={"rope_type": "linear", "factor": 2.0})
    with pytest.raises(InputError, match="rope_type 'linear' is not supported"):
        NGPTModel(config)


@pytest.mark.parametrize("change", [{"hidden_size": "16"}, {"tie_word_embeddings": 3}, {"rope_parameters": "default"}])
def test_a_field_of_another_type_is_refused(small_config, change):
    with pytest.raises(Exception, match=next(iter(change))):
        small_config(**change)


def test_an_unknown_activation_is_refused(small_config):
    with pytest.raises(InputError, match="hidden_act is 'gelu_9'"):
        NGPTModel(small_config(hidden_act="gelu_9"))


def test_another_models_config_is_refused(small_config, tmp_path):
    sizes = {name: getattr(small_config(), name) for name in ("vocab_size", "hidden_size", "num_key_value_heads")}
    other = NemotronConfig(**sizes, num_attention_heads=4, num_hidden_layers=1)
    with pytest.raises(InputError, match="model_type is 'nemotron'"):
        NGPTForCausalLM(other)
    other.save_pretrained(tmp_path)
    for cls in (NGPTConfig, NGPTForCausalLM):
        with pytest.raises(InputError, match="model_type is 'nemotron', and the NGPT classes load 'ngpt' only"):
            cls.from_pretrained(tmp_path)


def test_both_spellings_of_the_dtype_are_taken(small_config):
    import torch

    assert small_config(torch_dtype="bfloat16").dtype == small_config(dtype="bfloat16").dtype == torch.bfloat16


def test_what_the_user_adds_is_kept(small_config):
    assert small_config(note="mine").to_dict()["note"] == "mine"
    NGPTModel(small_config(note="mine"))
