"""What transformers asks of every decoder, of ours."""

import copy

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, DynamicCache
from transformers.integrations import flash_attention

from ngpt_lab.errors import InputError
from ngpt_lab.hf import NGPTForCausalLM, NGPTForSequenceClassification, NGPTModel
from ngpt_lab.hf.losses import next_token_loss
from ngpt_lab.nn.linear import weight_error
from ngpt_lab.nn.scale import Scale


def checkpointed(model, **settings):
    """Turn on what is called gradient checkpointing in older versions."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(settings or None)


def close(a, b, tolerance=1e-10):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@torch.no_grad()
def test_embedded_tokens_are_as_good_as_tokens(small_model, tokens):
    model = small_model()
    embedded = model.get_input_embeddings()(tokens)
    assert torch.equal(model(inputs_embeds=embedded).logits, model(tokens).logits)


def test_tokens_together_with_embedded_ones_are_refused(small_model, tokens):
    model = small_model()
    for given in ({}, {"input_ids": tokens, "inputs_embeds": model.get_input_embeddings()(tokens)}):
        with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
            model(**given)


@pytest.fixture
def register_attention(monkeypatch):
    """Registers an attention function until the test is over."""
    monkeypatch.setattr(AttentionInterface, "_global_mapping", AttentionInterface._global_mapping.copy())
    return AttentionInterface.register


@torch.no_grad()
def test_eager_sdpa_and_a_registered_attention_agree(small_model, left_padded, register_attention):
    model, (padded, mask) = small_model(), left_padded
    register_attention("own_sdpa", AttentionInterface()["sdpa"])
    logits = {}
    for name in ("eager", "sdpa", "own_sdpa"):
        model.set_attn_implementation(name)
        given = mask if name != "own_sdpa" else mask[:, None, None, :].bool() & torch.ones(7, 7).tril().bool()
        logits[name] = model(padded, attention_mask=given).logits[mask.bool()]
    assert close(logits["eager"], logits["sdpa"])
    assert close(logits["own_sdpa"], logits["sdpa"])


@pytest.mark.parametrize("reentrant", [False, True])
def test_an_attention_function_is_told_its_layer_also_where_blocks_run_twice(
    small_model, tokens, register_attention, reentrant
):
    calls = []

    def attention(module, query, *given, **settings):
        calls.append((module.layer_idx, module.training, module.num_key_value_groups, module.config._attn_implementation))
        return AttentionInterface()["sdpa"](module, query, *given, **settings)

    register_attention("told", attention)
    model = small_model(attn_implementation="told").train()
    checkpointed(model, use_reentrant=reentrant)
    model.enable_input_require_grads()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    assert calls == [(layer, True, 2, "told") for layer in (0, 1, 1, 0)]


@torch.no_grad()
def test_flash_attention_is_given_what_it_needs(small_model, left_padded, monkeypatch):
    def kernel(query, key, value, attention_mask, query_length, is_causal, dropout, softmax_scale, **_):
        assert is_causal
        allowed = torch.ones(query_length, key.shape[1]).tril(key.shape[1] - query_length).bool()
        if attention_mask is not None:
            allowed = allowed & attention_mask[:, None, None, :].bool()
        heads = (t.transpose(1, 2) for t in (query, key, value))
        out = nn.functional.scaled_dot_product_attention(*heads, attn_mask=allowed, scale=softmax_scale, enable_gqa=True)
        return out.transpose(1, 2)

    monkeypatch.setattr(flash_attention, "_flash_attention_forward", kernel)
    model, (padded, mask) = small_model(dtype=torch.bfloat16), left_padded
    expected, alone = model(padded, attention_mask=mask).logits[mask.bool()], model(padded).logits
    model.config._attn_implementation = "flash_attention_2"
    assert close(model(padded, attention_mask=mask).logits[mask.bool()], expected, 0.05)
    assert close(model(padded).logits, alone, 0.05)
    with pytest.raises(InputError, match="'flash_attention_2' computes in half precision"):
        model.float()(padded)


@torch.no_grad()
def test_hidden_states_and_attention_weights_are_shown_on_request(small_model, left_padded):
    model, (padded, mask) = small_model(attn_implementation="eager"), left_padded
    out = model(padded, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    assert [h.shape for h in out.hidden_states] == [(2, 7, 16)] * 3
    assert [w.shape for w in out.attentions] == [(2, 4, 7, 7)] * 2
    for weights in out.attentions:
        assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 4, 7, dtype=weights.dtype))
        assert not weights.triu(1)[0].any()
        assert not weights[1, :, 3:, :3].any()
    plain = model(padded, attention_mask=mask)
    assert plain.hidden_states is None
    assert plain.attentions is None
    assert torch.equal(out.logits, plain.logits)


@torch.no_grad()
def test_the_config_can_ask_for_hidden_states_and_attention_weights_too(small_model, tokens):
    model = small_model(attn_implementation="eager", output_hidden_states=True, output_attentions=True)
    out = model(tokens)
    assert len(out.hidden_states) == 3
    assert len(out.attentions) == 2


def test_gradients_reach_hidden_states_and_attention_weights(small_model, tokens):
    model = small_model(attn_implementation="eager")
    out = model(tokens, output_hidden_states=True, output_attentions=True)
    shown = [*out.hidden_states, *out.attentions]
    for tensor in shown:
        tensor.retain_grad()
    out.logits.sum().backward()
    assert all(tensor.grad is not None for tensor in shown[1:])


@torch.no_grad()
def test_kept_logits_are_those_of_all(small_model, tokens):
    model = small_model()
    logits = model(tokens).logits
    assert close(model(tokens, logits_to_keep=2).logits, logits[:, -2:])
    assert close(model(tokens, logits_to_keep=torch.tensor([1, 4])).logits, logits[:, [1, 4]])


@torch.no_grad()
@pytest.mark.parametrize("cls", [NGPTModel, NGPTForCausalLM, NGPTForSequenceClassification])
def test_a_tuple_is_given_where_one_is_asked_for(small_model, tokens, cls):
    model = small_model(cls)
    named, plain = model(tokens), model(tokens, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], named[0])


@torch.no_grad()
def test_positions_count_on_from_the_cache(small_model, tokens):
    model, cache = small_model(), DynamicCache()
    whole = model(tokens, use_cache=False)
    assert whole.past_key_values is None
    parts = [model(tokens[:, part], past_key_values=cache).logits for part in (slice(0, 3), slice(3, 4), slice(4, 7))]
    assert close(torch.cat(parts, dim=1), whole.logits)
    assert cache.get_seq_length() == 7


@torch.no_grad()
def test_padding_anywhere_changes_no_token_and_gives_no_nan(small_model, tokens, left_padded):
    for attention in ("sdpa", "eager"):
        model, (padded, mask) = small_model(attn_implementation=attention), left_padded
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = model(padded, attention_mask=mask, position_ids=positions).logits
        alone = model(tokens[1:, 3:]).logits
        assert out.isfinite().all()
        assert close(out[1, 3:], alone[0])
        out = model(padded.flip(1), attention_mask=mask.flip(1)).logits
        assert close(out[1, :4], model(tokens[1:, 3:].flip(1)).logits[0])
        assert model(padded, attention_mask=torch.zeros_like(mask)).logits.isfinite().all()


@torch.no_grad()
def test_a_fresh_model_starts_on_the_sphere_with_constant_scales(small_config, tokens):
    config = small_config(suv_init_scaling=0.5, sz_init_value=3.0)
    model = NGPTForCausalLM(config)
    assert weight_error(model) < 1e-6
    scales = {name: part for name, part in model.named_modules() if isinstance(part, Scale)}
    assert len(scales) == 1 + 2 * 4
    for name, scale in scales.items():
        assert (scale.stored == (0.5 if name.endswith("s_u") else 0.1)).all()
    assert torch.allclose(model.lm_head.s_z(), torch.tensor(3.0))
    assert model(tokens * 0).logits.isfinite().all()  # padding alone, which is not a row of zeros
    assert torch.linalg.vector_norm(model.get_input_embeddings().weight[0]).isclose(torch.tensor(1.0))


def test_a_fresh_head_is_small(small_config):
    model = NGPTForSequenceClassification(small_config(hidden_size=256, num_labels=50, initializer_range=0.02))
    assert 0.018 < model.score.weight.std() < 0.022


def test_checkpointed_gradients_are_the_same(small_model, tokens):
    model = small_model(attention_dropout=0.0).train()
    model(tokens, labels=tokens).loss.backward()
    plain = [p.grad for p in model.parameters()]
    for reentrant in (False, True):
        model.zero_grad()
        checkpointed(model, use_reentrant=reentrant)
        model.enable_input_require_grads()
        calls = []
        hook = model.model.decoder.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        out = model(tokens, labels=tokens, use_cache=True)
        assert out.past_key_values is None  # a block that runs twice would fill it twice
        out.loss.backward()
        assert len(calls) == 2
        assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))
        hook.remove()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("at_mean", [False, True])
@torch.no_grad()
def test_a_grown_vocabulary_keeps_its_logits_and_stays_on_the_sphere(small_model, tokens, tied, at_mean):
    model = small_model(tie_word_embeddings=tied)
    before = model(tokens).logits
    embedding = model.resize_token_embeddings(45, mean_resizing=at_mean)
    assert embedding is model.get_input_embeddings()
    assert model.config.vocab_size == model.vocab_size == 45
    after = model(tokens + 4 * (tokens == 40)).logits
    assert after.shape[-1] == 45
    assert close(model(tokens).logits[..., :41], before)
    assert weight_error(model) < 1e-6
    assert (model.get_output_embeddings().weight is embedding.weight) == tied
    old, new = model.lm_head.s_z.stored.split((41, 4))
    assert torch.allclose(new, old.mean() if at_mean else torch.tensor(0.1, dtype=old.dtype))
    model.resize_token_embeddings(40)
    assert model(tokens.clamp(max=39)).logits.shape[-1] == 40
    assert model.resize_token_embeddings(pad_to_multiple_of=16).weight.shape[0] == 48


def test_tied_embeddings_are_one_parameter_and_learn_as_one(small_model, tokens):
    model = small_model(tie_word_embeddings=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert "lm_head.matrix.weight" not in dict(model.named_parameters())
    model(tokens, labels=tokens).loss.backward()
    assert model.get_input_embeddings().weight.grad.any(dim=1).all()


@torch.no_grad()
def test_embeddings_can_be_replaced(small_model, tokens):
    model = small_model()
    ours = model(tokens).logits
    other = nn.Embedding(41, 16, dtype=torch.float64)
    other.weight.copy_(model.get_input_embeddings().weight)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other
    assert torch.equal(model(tokens).logits, ours)
    model.set_output_embeddings(other)
    assert model.get_output_embeddings().weight is other.weight


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (nn.Linear(16, 43, bias=False), r"the weight is \(43, 16\), and this model's is \(41, 16\)"),
        (nn.Linear(16, 41), "there is a bias"),
        (nn.Identity(), "Identity has no weight"),
    ],
)
def test_output_embeddings_that_do_not_fit_are_refused(small_model, module, told):
    with pytest.raises(InputError, match=told):
        small_model().set_output_embeddings(module)


def test_a_copy_computes_the_same(small_model, tokens):
    model = small_model()
    assert torch.equal(copy.deepcopy(model)(tokens).logits, model(tokens).logits)


def test_labels_that_are_left_out_and_shifted_ones_are_honoured(small_model, tokens):
    model = small_model()
    logits = model(tokens).logits
    labels = tokens.clone()
    labels[:, 3] = -100
    expected = nn.functional.cross_entropy(logits[:, [0, 1, 3, 4, 5]].flatten(0, 1), labels[:, [1, 2, 4, 5, 6]].flatten())
    assert close(model(tokens, labels=labels).loss, expected)
    shifted = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    assert close(model(tokens, shift_labels=shifted).loss, expected)
    assert close(model(tokens, labels=labels, num_items_in_batch=20).loss, expected * 10 / 20)


def test_a_token_outside_the_vocabulary_is_no_label(small_model, tokens):
    model, labels = small_model(), tokens.clone()
    for wrong in (41, -1):
        labels[1, 4] = wrong
        for given in ({"labels": labels}, {"shift_labels": labels}):
            with pytest.raises(InputError, match=rf"labels: {wrong} is none of the 41 .*: use 0 to 40, or -100"):
                model(tokens, **given)


def test_labels_on_an_accelerator_are_not_waited_for_and_their_number_may_be_elsewhere():
    with torch.device("meta"):  # whose values cannot be read
        logits, labels = torch.zeros(2, 7, 41), torch.zeros(2, 7, dtype=torch.long)
    assert next_token_loss(logits, labels, 41, num_items_in_batch=torch.tensor([14])).is_meta
