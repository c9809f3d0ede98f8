"""Filters leave what transformers' warpers leave, in transformers' order, and tokens are drawn with those probabilities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ngpt_lab.errors import InputError
from ngpt_lab.generation.sampling import Greedy, Sampling

SIZE = 23


def logits_of(seed, rows=3, spread=3.0):
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed)) * spread


def warped(logits, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
    """As transformers' generate does."""
    warpers = [TemperatureLogitsWarper(temperature)]
    warpers += [] if top_k is None else [TopKLogitsWarper(top_k)]
    warpers += [] if top_p == 1 else [TopPLogitsWarper(top_p)]
    warpers += [] if min_p == 0 else [MinPLogitsWarper(min_p)]
    for warper in warpers:
        logits = warper(None, logits)
    return logits


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 5),
    st.none() | st.integers(1, SIZE + 3),
    st.just(1.0) | st.floats(0.01, 0.999),
    st.just(0.0) | st.floats(0.01, 0.999),
    st.booleans(),
)
def test_the_filters_leave_what_transformers_warpers_leave(seed, temperature, top_k, top_p, min_p, ties):
    logits = logits_of(seed).round() if ties else logits_of(seed)
    ours = Sampling(temperature, top_k, top_p, min_p).filtered(logits)
    assert torch.equal(ours, warped(logits, temperature, top_k, top_p, min_p))
    assert ours.isfinite().any(dim=-1).all()


def test_transformers_generate_applies_the_warpers_in_this_order():
    from transformers import GenerationConfig, GenerationMixin

    asked = GenerationConfig(do_sample=True, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, num_beams=1)
    found = GenerationMixin._get_logits_processor(GenerationMixin(), asked, input_ids_seq_length=1)
    order = [TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper]
    assert [type(warper) for warper in found if isinstance(warper, tuple(order))] == order


def test_tokens_are_drawn_as_often_as_is_their_probability():
    sampling = Sampling(0.8, top_k=6, top_p=0.95, generator=torch.Generator().manual_seed(0))
    logits = logits_of(1, rows=1)
    drawn = sampling(logits.expand(20000, -1))
    expected = warped(logits, 0.8, 6, 0.95).softmax(dim=-1)[0]
    often = drawn.bincount(minlength=SIZE) / len(drawn)
    assert (often[expected == 0] == 0).all()
    assert ((often - expected).abs() < 5 * (expected / len(drawn)).sqrt() + 1e-9).all()


def test_one_candidate_is_the_likeliest():
    logits = logits_of(2)
    for only in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)):
        assert torch.equal(only(logits), Greedy()(logits))


def test_half_precision_logits_are_filtered_in_float32():
    logits = logits_of(3).bfloat16()
    assert torch.equal(Sampling(0.7, top_p=0.9).filtered(logits), warped(logits.float(), 0.7, top_p=0.9))


def test_a_generator_draws_the_same_again():
    draws = [
        [Sampling(generator=g)(logits_of(4)).tolist() for _ in range(5)]
        for g in (torch.Generator().manual_seed(s) for s in (1, 1, 2))
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"temperature": 0.0}, r"temperature is 0\.0: it must be at least 1e-20 and finite"),
        ({"temperature": 1e-40}, r"temperature is 1e-40: it must be at least 1e-20"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0: it must be at least 1"),
        ({"top_p": 0.0}, r"top_p is 0\.0: it must be above 0 and at most 1"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"min_p": 1.0}, r"min_p is 1\.0: it must be at least 0 and below 1"),
        ({"min_p": -0.1}, r"min_p is -0\.1"),
    ],
)
def test_a_value_out_of_its_range_is_refused(setting, told):
    with pytest.raises(InputError, match=told):
        Sampling(**setting)
