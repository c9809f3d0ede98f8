"""Parameter names both ways, and state dicts that do not fit."""

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.interop import import_weights, reference_names


def test_names_are_a_bijection_onto_the_state_dict(golden_float64):
    golden = golden_float64
    names, weights, decoder = golden.names, golden.below("param."), golden.decoder()
    assert set(names.ours) == set(weights)
    assert set(names.theirs) == {name for name, _ in decoder.named_parameters()}
    assert {ours: theirs for theirs, ours in names.ours.items()} == names.theirs
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter.flatten(), weights[names.theirs[name]].flatten())


def test_the_given_tensors_are_copied(golden_float64):
    golden = golden_float64
    weights = golden.below("param.")
    before = {name: t.clone() for name, t in weights.items()}
    decoder = import_weights(golden.kind, weights, golden.config, rope=golden.rope)
    with torch.no_grad():
        for p in decoder.parameters():
            p.zero_()
    assert all(torch.equal(weights[name], t) for name, t in before.items())


def test_importing_leaves_the_random_numbers_alone(golden_float64):
    before = torch.get_rng_state()
    golden_float64.decoder()
    assert torch.equal(before, torch.get_rng_state())


def test_an_imported_decoder_can_be_reset_to_a_fresh_start(golden_float64):
    decoder = golden_float64.decoder()
    decoder.reset_parameters()
    assert torch.isfinite(decoder(golden_float64["input_ids"])).all()


def test_every_tensor_that_does_not_fit_is_named_in_one_sentence(golden_float64):
    golden = golden_float64
    weights = golden.below("param.")
    missing, misshapen, integer = sorted(weights)[:3]
    del weights[missing]
    weights[misshapen] = weights[misshapen].flatten()[:-1]
    weights[integer] = weights[integer].long()
    weights["lm_head.bias"] = torch.zeros(2)
    with pytest.raises(InputError) as refused:
        import_weights(golden.kind, weights, golden.config, rope=golden.rope)
    for said in (
        f"{missing} is missing",
        f"{misshapen} has shape",
        f"{integer} is of torch.int64",
        "lm_head.bias has no place",
    ):
        assert said in str(refused.value)


def test_a_tied_model_s_repeated_tensor_is_taken_only_where_it_repeats(golden_named):
    golden = golden_named("r3_nemotron_lm_a_mha")
    tied = {name: t for name, t in golden.below("param.").items() if name != "lm_head.weight"}
    config = {**golden.config, "tie_word_embeddings": True}
    alone = import_weights("hf-nemotron", tied, config)
    repeated = import_weights("hf-nemotron", {**tied, "lm_head.weight": tied["model.embed_tokens.weight"].clone()}, config)
    assert repeated.lm_head.matrix.weight is repeated.embedding.weight
    assert torch.equal(alone(golden["input_ids"]), repeated(golden["input_ids"]))
    with pytest.raises(InputError, match=r"lm_head.weight has no place"):
        import_weights("hf-nemotron", golden.below("param."), config)


@pytest.mark.parametrize(
    ("kind", "rope", "said"),
    [
        ("hf-llama", "rotation", "kind is 'hf-llama'"),
        ("hf-ngpt", "literal", "rope is 'literal': hf-ngpt has rotation"),
        ("nvidia-ngpt", "yarn", "rope is 'yarn': nvidia-ngpt has rotation or literal"),
    ],
)
def test_an_unknown_kind_or_rope_is_refused_by_name(kind, rope, said):
    with pytest.raises(InputError) as refused:
        import_weights(kind, {}, {}, rope=rope)
    assert said in str(refused.value)


def test_names_of_an_unknown_kind_are_refused():
    with pytest.raises(InputError, match="choose one of hf-nemotron, hf-ngpt, nvidia-ngpt, lucidrains-ngpt"):
        reference_names("gpt2", {})
