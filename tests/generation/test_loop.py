"""Texts are continued as the references continue them, and as forward passes over the whole text would."""

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.generation.cache import FixedCache
from ngpt_lab.generation.loop import generate, last_logits
from ngpt_lab.generation.sampling import Greedy, Sampler, Sampling
from ngpt_lab.models import NGPT
from ngpt_lab.models.ablations.value_residual import ValueResidual
from ngpt_lab.nn.attend import attention_named
from ngpt_lab.nn.plain import OwnValue


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model(architecture, dims):
    return architecture(dims).double().eval()


@pytest.fixture
def tokens(dims):
    return torch.randint(1, dims.vocab_size, (3, 7))


@pytest.fixture
def mask():
    """Three rows, two of them padded on the left."""
    return torch.tensor([[1] * 7, [0] * 3 + [1] * 4, [0] * 6 + [1]])


class Recorded(Sampler):
    """Gives rows of ids, whatever the logits, and keeps the logits."""

    def __init__(self, *ids: list[int]) -> None:
        self.ids, self.seen = [torch.tensor(row) for row in ids], []

    def __call__(self, logits):
        self.seen.append(logits)
        return self.ids[len(self.seen) - 1]


def ids_of(*args, **kwargs):
    return torch.stack(list(generate(*args, **kwargs)), dim=1)


def test_greedy_ids_are_the_reference_s(golden):
    prompt, theirs = golden["gen.prompt_ids"], golden["gen.output_ids"]
    ours = ids_of(golden.decoder(), prompt, max_new_tokens=theirs.shape[1] - prompt.shape[1])
    assert torch.equal(torch.cat((prompt, ours), dim=1), theirs)


def test_greedy_ids_from_a_left_padded_batch_are_the_reference_s(golden):
    prompt, theirs = golden["pad.input_ids"], golden["padgen.output_ids"]
    new = theirs.shape[1] - prompt.shape[1]
    ours = ids_of(golden.decoder(), prompt, golden["pad.attention_mask"], max_new_tokens=new)
    assert torch.equal(torch.cat((prompt, ours), dim=1), theirs)


@pytest.mark.parametrize("value", [OwnValue, ValueResidual])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_token_is_chosen_from_the_logits_of_a_pass_over_its_whole_text(architecture, dims, tokens, value, attention):
    model = architecture(dims, value=value, attention=attention).double().eval()
    following = [[5, 9, 2], [7, 7, 1], [3, 4, 8]]
    sampler = Recorded(*following)
    list(generate(model, tokens, max_new_tokens=3, sampler=sampler))
    for at, logits in enumerate(sampler.seen):
        text = torch.cat((tokens, torch.tensor(following[:at], dtype=torch.long).view(at, 3).T), dim=1)
        torch.testing.assert_close(logits, model(text)[:, -1])


def test_padded_rows_go_on_as_rows_alone(model, tokens, mask):
    together = ids_of(model, tokens, mask, max_new_tokens=6)
    for row, seen, ours in zip(tokens, mask, together, strict=True):
        assert torch.equal(ids_of(model, row[seen.bool()][None], max_new_tokens=6)[0], ours)


def test_padding_is_told_by_the_mask_alone(model, tokens, mask):
    other = tokens.where(mask.bool(), 0)
    assert torch.equal(ids_of(model, tokens, mask, max_new_tokens=4), ids_of(model, other, mask.bool(), max_new_tokens=4))


def test_the_last_block_computes_all_but_the_keys_and_values_for_the_last_position_alone(model, tokens, mask):
    rows = []
    model.blocks[-1].mlp.register_forward_hook(lambda _, args, out: rows.append(args[0].shape[1]))
    cache = FixedCache(9)
    with torch.no_grad():
        logits = last_logits(model, tokens, (mask.cumsum(1) - 1).clamp_min(0), mask, cache)
        whole = model(tokens, positions=(mask.cumsum(1) - 1).clamp_min(0), attention_mask=mask)[:, -1]
    assert rows == [1, 7]
    assert cache.get_seq_length() == 7
    torch.testing.assert_close(logits, whole)


def test_ids_come_as_they_are_chosen(model, tokens):
    sampler = Recorded([1, 2, 3], [4, 5, 6])
    coming = generate(model, tokens, max_new_tokens=2, sampler=sampler)
    assert sampler.seen == []
    assert next(coming).tolist() == [1, 2, 3]
    assert len(sampler.seen) == 1
    assert next(coming).tolist() == [4, 5, 6]
    assert not torch.is_inference_mode_enabled()


def test_a_row_that_has_ended_repeats_its_end_and_the_last_end_is_the_end(model, tokens):
    sampler = Recorded([9, 1, 1], [2, 8, 3], [9, 4, 9], [5, 5, 5])
    new = ids_of(model, tokens, max_new_tokens=4, sampler=sampler, stop={8, 9})
    assert new.tolist() == [[9, 9, 9], [1, 8, 8], [1, 3, 9]]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("sampler", [Greedy(), Sampling(top_k=3, top_p=0.9, min_p=0.1)], ids=["greedy", "drawn"])
def test_logits_that_are_no_numbers_are_refused(monkeypatch, model, tokens, sampler, number):
    broken = torch.zeros(3, 5)
    broken[1, slice(None) if number < 0 else 2] = number
    coming = iter((torch.zeros(3, 5), broken))
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", lambda *_: next(coming))
    ids = generate(model, tokens, max_new_tokens=9, sampler=sampler, stop={99})
    assert next(ids).shape == (3,)
    with pytest.raises(InputError, match="the model gives logits that are no finite numbers"):
        next(ids)


def test_large_logits_of_many_rows_are_numbers(monkeypatch, model):
    logits = torch.full((64, 5), 60000.0, dtype=torch.float16)
    monkeypatch.setattr("ngpt_lab.generation.loop.last_logits", lambda *_: logits)
    assert len(list(generate(model, torch.ones(64, 1, dtype=torch.long), max_new_tokens=3, stop={4}))) == 3


def test_without_an_end_as_many_come_as_were_asked_for(model, tokens):
    assert ids_of(model, tokens, max_new_tokens=5).shape == (3, 5)
    assert ids_of(model, tokens, max_new_tokens=1).shape == (3, 1)


def test_weights_in_bfloat16_go_on_too(dims, tokens):
    model = NGPT(dims).bfloat16().eval()
    assert ids_of(model, tokens, max_new_tokens=3).shape == (3, 3)


def test_a_full_cache_says_so():
    cache = FixedCache(3)
    states = torch.zeros(1, 2, 2, 4)
    keys, values = cache.update(states, states, 0)
    assert keys.shape == values.shape == states.shape
    with pytest.raises(InputError, match="the cache has room for 3 positions and would hold 4: make it longer"):
        cache.update(states, states, 0)
    assert cache.get_seq_length() == 2


def test_a_cache_that_no_memory_holds_says_so():
    states = torch.zeros(1, 2, 2, 4)
    with pytest.raises(InputError, match="no memory for a cache of 1000000000000000 positions: ask for fewer new tokens"):
        FixedCache(10**15).update(states, states, 0)


def test_a_cache_is_written_in_place():
    cache, states = FixedCache(3), torch.randn(1, 2, 2, 4)
    first, _ = cache.update(states, states, 0)
    later, values = cache.update(states[:, :, :1] + 1, states[:, :, :1] - 1, 0)
    assert later.data_ptr() == first.data_ptr()
    assert torch.equal(later, torch.cat((states, states[:, :, :1] + 1), dim=2))
    assert torch.equal(values, torch.cat((states, states[:, :, :1] - 1), dim=2))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tokens": torch.zeros(2, 0, dtype=torch.long)}, r"have the shape \(2, 0\)"),
        ({"tokens": torch.zeros(3, dtype=torch.long)}, r"have the shape \(3,\)"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be at least 1"),
        ({"attention_mask": torch.ones(3, 6)}, r"attention_mask is \(3, 6\) and the tokens are \(3, 7\)"),
        ({"attention_mask": torch.tensor([[1] * 6 + [0]] * 3)}, "hides the end of a text.*: pad on the left"),
    ],
)
def test_what_cannot_be_continued_is_refused(model, tokens, change, told):
    with pytest.raises(InputError, match=told):
        next(generate(**{"decoder": model, "tokens": tokens, "max_new_tokens": 2} | change))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_one_query_needs_no_mask_whatever_the_attention_function(dims, tokens):
    model = NGPT(dims).eval()
    with torch.no_grad():
        whole = model(tokens)
        for name in ("sdpa", "eager", "flex"):
            model.attend, cache = attention_named(name), FixedCache(7)
            model(tokens[:, :6], cache=cache)
            torch.testing.assert_close(model(tokens[:, 6:], cache=cache)[:, 0], whole[:, -1])
