"""transformers' generation with the NGPT classes: a cache, padding and beams change no token."""

import pytest
import torch
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig, StaticCache


def generate(model, prompt, **settings):
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, **settings}
    return model.generate(prompt, attention_mask=settings.pop("attention_mask", torch.ones_like(prompt)), **settings)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cached_uncached_and_static_are_the_same(small_model, tokens, attention):
    model = small_model(attn_implementation=attention)
    plain = generate(model, tokens, use_cache=False)
    assert plain.shape == (2, 17)
    assert torch.equal(generate(model, tokens), plain)
    assert torch.equal(generate(model, tokens, cache_implementation="static"), plain)
    assert torch.equal(generate(model, tokens, past_key_values=DynamicCache(config=model.config)), plain)


def test_the_greedy_choice_is_the_largest_logit(small_model, tokens):
    model = small_model()
    out = generate(model, tokens, return_dict_in_generate=True, output_logits=True)
    logits = model(out.sequences).logits[:, 6:-1]
    assert torch.equal(out.sequences[:, 7:], logits.argmax(dim=-1))
    assert torch.allclose(torch.stack(out.logits, dim=1), logits.float(), atol=1e-6)


@pytest.mark.parametrize("cache", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_a_left_padded_row_continues_as_if_alone(small_model, tokens, left_padded, cache):
    model, (padded, mask) = small_model(), left_padded
    together = generate(model, padded, attention_mask=mask, **cache)
    assert torch.equal(together[0], generate(model, tokens[:1], **cache)[0])
    assert torch.equal(together[1, 3:], generate(model, tokens[1:, 3:], **cache)[0])


def test_a_cache_goes_on_from_one_call_to_the_next(small_model, tokens):
    model, cache = small_model(), DynamicCache()
    first = generate(model, tokens, max_new_tokens=4, past_key_values=cache)
    second = generate(model, first, max_new_tokens=6, past_key_values=cache)
    assert torch.equal(second, generate(model, tokens))


def test_a_static_cache_filled_in_parts_gives_the_same_logits(small_model, tokens):
    model = small_model()
    cache = StaticCache(config=model.config, max_cache_len=12)
    with torch.no_grad():
        parts = [model(tokens[:, part], past_key_values=cache).logits for part in (slice(0, 4), slice(4, 5), slice(5, 7))]
        assert torch.allclose(torch.cat(parts, dim=1), model(tokens).logits, atol=1e-10)


def test_beams_find_what_is_likelier(small_model, tokens):
    model = small_model()
    beams = generate(model, tokens, num_beams=4)
    assert torch.equal(beams, generate(model, tokens, num_beams=4, use_cache=False))

    def likelihood(ids):
        logp = model(ids).logits.log_softmax(dim=-1)[:, 6:-1]
        return logp.gather(-1, ids[:, 7:, None]).sum(dim=(1, 2))

    with torch.no_grad():
        assert (likelihood(beams) >= likelihood(generate(model, tokens)) - 1e-9).all()


def test_sampling_is_the_same_with_a_cache(small_model, tokens):
    model = small_model()
    drawn = []
    for cache in ({}, {"use_cache": False}):
        torch.manual_seed(3)
        drawn.append(generate(model, tokens, do_sample=True, temperature=1.5, top_k=20, top_p=0.95, **cache))
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], generate(model, tokens))


def test_an_assistant_changes_no_token(small_model, tokens):
    model, assistant = small_model(), small_model(num_hidden_layers=1)
    plain = generate(model, tokens[:1])
    assert torch.equal(generate(model, tokens[:1], assistant_model=assistant), plain)
    assert torch.equal(generate(model, tokens[:1], prompt_lookup_num_tokens=3), plain)


def test_generation_starts_from_embedded_tokens_too(small_model, tokens):
    model = small_model()
    embedded = model.get_input_embeddings()(tokens)
    ids = model.generate(
        inputs_embeds=embedded, attention_mask=torch.ones_like(tokens), max_new_tokens=10, do_sample=False, eos_token_id=None
    )
    assert torch.equal(ids, generate(model, tokens)[:, 7:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_that_come_and_go_continue_as_if_alone(small_model, tokens, attention):
    model = small_model(attn_implementation=attention, dtype=torch.float32)
    rows = [tokens[0].tolist(), tokens[1, 3:].tolist()]
    settings = GenerationConfig(max_new_tokens=10, do_sample=False, eos_token_id=-1, pad_token_id=0)
    blocks = ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=32)
    found = model.generate_batch(rows, settings, continuous_batching_config=blocks, progress_bar=False)
    for row, answer in zip(rows, (found[name] for name in sorted(found)), strict=True):
        assert answer.generated_tokens == generate(model, torch.tensor([row]))[0, len(row) :].tolist(), answer.error
