"""Activation checkpointing keeps less and changes no gradient."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.models.ablations.value_residual import ValueResidual
from ngpt_lab.nn import product
from ngpt_lab.nn.checkpointing import FullCheckpointing, SelectiveCheckpointing
from ngpt_lab.nn.product import OPERATOR

DIMS = Dims(64, 32, 4, 4, 2, 8, 64)
PRODUCTS = (torch.ops.aten.mm.default, OPERATOR, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default)


class Counting(TorchDispatchMode):
    """How many matrix products and attentions there were."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in PRODUCTS
        return func(*args, **kwargs or {})


def step(model, carry_out, compiled=False, documents=None):
    """The loss and gradients, the bytes that autograd keeps, and the products of the backward pass."""
    torch.manual_seed(0)
    decoder, ids = model(DIMS), torch.randint(64, (2, 33))
    if carry_out is not None:
        decoder.carry_out = carry_out
    if compiled:
        decoder.compile(fullgraph=True)
    own = {p.data_ptr() for p in decoder.parameters()}
    kept = {}

    def keep(t):
        if t.data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = decoder(ids[:, :-1], ids[:, 1:], documents=documents)
    counting = Counting()
    with nullcontext() if compiled else counting:
        loss.backward()
    return [loss.detach(), *(p.grad for p in decoder.parameters())], sum(kept.values()), counting.count


@pytest.mark.parametrize("model", [NGPT, Nemotron, partial(NGPT, value=ValueResidual)])
def test_gradients_are_equal_and_each_policy_repeats_what_it_says(model):
    expected, kept, products = step(model, None)
    all_again, kept_by_all, products_of_all = step(model, FullCheckpointing())
    half_again, kept_by_half, products_of_half = step(model, FullCheckpointing(every=2))
    selective, kept_by_selective, products_of_selective = step(model, SelectiveCheckpointing())
    for found in (all_again, half_again, selective):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert kept_by_all < 0.35 * kept
    assert kept_by_all < kept_by_half < 0.7 * kept
    assert kept_by_selective < 0.35 * kept  # beside what the products return, which autograd does not hold
    assert products_of_selective == products < products_of_half < products_of_all


def test_what_onednn_multiplied_is_not_multiplied_again(monkeypatch):
    monkeypatch.setattr(product, "MKL_IS_SLOW", True)
    monkeypatch.setattr(product, "WORTH_A_CALL", 1)
    expected, _, products = step(NGPT, None)
    selective, _, products_of_selective = step(NGPT, SelectiveCheckpointing())
    _, _, products_of_all = step(NGPT, FullCheckpointing())
    assert all(torch.equal(one, other) for one, other in zip(selective, expected, strict=True))
    assert products_of_selective == products < products_of_all


@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager", "blocked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2], ids=["causal", "documents of one row", "documents of each row"])
def test_every_attention_can_be_kept_whatever_its_mask_and_precision(attention, dtype, rows):
    documents = torch.tensor([[0] * 9 + [1] * 23, [0] * 20 + [1] * 12])[:rows] if rows else None
    model = partial(NGPT, attention=attention)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        expected, _, _ = step(model, None, documents=documents)
        for carry_out in (FullCheckpointing(), SelectiveCheckpointing()):
            found, _, _ = step(model, carry_out, documents=documents)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("carry_out", [FullCheckpointing(), SelectiveCheckpointing()], ids=["full", "selective"])
def test_compiled_into_one_graph_the_gradients_are_the_same_and_less_is_kept(carry_out):
    model = partial(NGPT, value=ValueResidual)
    expected, kept, _ = step(model, None)
    found, kept_by_it, _ = step(model, carry_out, compiled=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert kept_by_it < 0.6 * kept


@pytest.mark.parametrize("model", [NGPT, pytest.param(Nemotron, marks=pytest.mark.slow)])
@pytest.mark.parametrize("attention", ["sdpa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("blocked", "eager"))])
def test_compiled_it_takes_windows_of_any_length(model, attention):
    decoder = model(DIMS, attention=attention)
    decoder.carry_out = FullCheckpointing()
    torch.compiler.reset()
    compiled = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=2):  # one graph for the first length, one for all others
        for length in (16, 24, 40):
            ids = torch.randint(64, (2, length + 1))
            loss = compiled(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.testing.assert_close(loss, decoder(ids[:, :-1], ids[:, 1:]))


def test_every_must_be_at_least_1():
    with pytest.raises(InputError, match=r"activation_checkpointing\.every is 0: it must be at least 1"):
        FullCheckpointing(every=0)
