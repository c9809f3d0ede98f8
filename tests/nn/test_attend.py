"""The attention functions against the formula; those that need a GPU with a stand-in of their kernel's signature."""

import sys
from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Dims
from ngpt_lab.nn import attend_function
from ngpt_lab.nn.attend import ATTENTION
from ngpt_lab.nn.attend_flash import document_ends, flash, varlen
from ngpt_lab.nn.attend_flex import BLOCK, FLEX, block_mask
from ngpt_lab.nn.attend_formula import EAGER, eager
from ngpt_lab.nn.masks import causal_mask

CPU = torch.device("cpu")
ON_CPU = ("sdpa", "sdpa-flash", "sdpa-math", "blocked")
DIMS = Dims(vocab_size=17, d_model=12, n_layers=3, n_heads=4, n_kv_heads=2, d_head=16, d_ff=20)
unwarned = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def qkv(seed, heads, kv_heads, queries, keys, d_head=4, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    return [torch.randn(2, *shape, d_head, generator=draw, dtype=dtype, requires_grad=True) for shape in shapes]


def seen_by(kind, length, seed=0):
    """Queries, keys, attention_mask and documents of a call."""
    draw = torch.Generator().manual_seed(seed)
    visible = (torch.rand(2, length, generator=draw) < 0.6).long() if "padding" in kind else None
    if visible is not None:
        visible[1, : length // 2] = 0
    documents = (torch.rand(2, length, generator=draw) < 0.1).long().cumsum(1) if "documents" in kind else None
    queries = 1 if kind == "one query" else max(2, length - 131) if "cache" in kind else length
    return queries, length, visible, documents


KINDS = ("causal", "padding", "documents", "documents and padding", "cache", "cache and padding", "one query")


def with_gradients(attend, q, k, v, mask):
    y = attend(q, k, v, mask, 0.3, 0.0)
    return y, *torch.autograd.grad(y.square().sum(), (q, k, v))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(ON_CPU),
    st.sampled_from(KINDS),
    st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 3)]),
    st.sampled_from([2, 5, 128, 300]),
    st.integers(0, 2**32 - 1),
)
def test_every_function_of_a_cpu_equals_the_formula_with_its_gradients(name, kind, heads, length, seed):
    queries, keys, visible, documents = seen_by(kind, length, seed)
    function, tensors = ATTENTION[name], qkv(seed, *heads, queries, keys)
    mask = function.prepare(queries, keys, visible, CPU, documents)
    torch.testing.assert_close(
        with_gradients(function.compute, *tensors, mask), with_gradients(eager, *tensors, mask), rtol=1e-6, atol=1e-6
    )


def test_the_formula_is_the_formula():
    q, k, v = qkv(1, 2, 1, 3, 5)
    weights = (q @ k.transpose(2, 3) * 0.3).masked_fill(~causal_mask(3, 5, None, CPU), -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(eager(q, k, v, None, 0.3, 0.0), weights @ v)


@unwarned
@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_flex_equals_the_formula(kind):
    queries, keys, visible, documents = seen_by(kind, 300)
    q, k, v = (x.detach() for x in qkv(2, 4, 2, queries, keys, 16, torch.float32))
    expected = eager(q, k, v, causal_mask(queries, keys, visible, CPU, documents), 0.3, 0.0)
    torch.testing.assert_close(FLEX.compute(q, k, v, block_mask(queries, keys, visible, CPU, documents), 0.3, 0.0), expected)


def as_blocks(many, which, columns):
    """The block matrix that counts and ordered indices of a BlockMask mean."""
    return torch.zeros(*which.shape[:3], columns + 1).scatter(
        3, which.long().where(torch.arange(columns) < many[..., None], columns), 1.0
    )[..., :columns]


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_a_block_mask_made_of_blocks_is_that_of_the_whole_mask(kind, length, seed):
    queries, keys, visible, documents = seen_by(kind, max(length, 2), seed)
    mask = block_mask(queries, keys, visible, CPU, documents)
    whole = causal_mask(queries, keys, visible, CPU, documents)
    whole = torch.ones(1, 1, queries, keys).tril(keys - queries).bool() if whole is None else whole
    rows, columns = -(-queries // BLOCK), -(-keys // BLOCK)
    padded = F.pad(whole, (0, columns * BLOCK - keys, 0, rows * BLOCK - queries))
    parts = padded.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    some, full = parts.any(dim=5).any(dim=3), parts.all(dim=5).all(dim=3)
    partly = as_blocks(mask.kv_num_blocks, mask.kv_indices, columns)
    wholly = as_blocks(mask.full_kv_num_blocks, mask.full_kv_indices, columns)
    assert torch.equal(wholly.bool(), full)
    assert not (some & ~(partly + wholly).bool()).any()
    assert not (partly * wholly).any()
    rule = [mask.mask_mod(torch.tensor(b), None, torch.arange(queries)[:, None], torch.arange(keys)) for b in range(len(whole))]
    assert torch.equal(torch.stack(rule)[:, None], whole)


def test_blocks_leave_out_what_no_query_sees():
    documents = torch.arange(1024).div(128, rounding_mode="floor")[None]
    mask = block_mask(1024, 1024, None, CPU, documents)
    assert mask.kv_num_blocks.flatten().tolist() == [1] * 8
    assert not mask.full_kv_num_blocks.any()


@pytest.mark.parametrize("name", ["flex", "varlen", "sdpa"])
def test_what_all_layers_share_is_made_once_a_call(name):
    made = []

    def prepare(*arguments):
        made.append(arguments)

    model = NGPT(DIMS)
    model.attend = replace(ATTENTION[name], prepare=prepare, compute=lambda q, *_: q, limits=attend_function.Limits())
    model(torch.zeros(2, 5, dtype=torch.long), documents=torch.zeros(2, 5, dtype=torch.long))
    assert len(made) == 1


@pytest.mark.parametrize("name", [*ON_CPU, "eager"])
def test_a_whole_graph_of_a_function_equals_the_formula(name):
    queries, keys, _, documents = seen_by("documents", 140)
    function, tensors = ATTENTION[name], qkv(6, 4, 2, queries, keys)

    def attend(q, k, v, documents):
        mask = function.prepare(queries, keys, None, CPU, documents)
        return function.compute(q, k, v, mask, 0.3, 0.0) + function.compute(q, k, v, None, 0.3, 0.0)

    torch.compiler.reset()
    graph = torch.compile(attend, backend="aot_eager", fullgraph=True)
    masks = causal_mask(queries, keys, None, CPU, documents), None
    y, expected = graph(*tensors, documents), sum(eager(*tensors, mask, 0.3, 0.0) for mask in masks)
    torch.testing.assert_close(y, expected)
    ours, theirs = (torch.autograd.grad(x.square().sum(), tensors) for x in (y, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_whole_graph_holds_what_auto_chooses_by_autocast_and_computes_as_without_one():
    tokens, model = torch.randint(17, (2, 140)), NGPT(replace(DIMS, n_layers=1), attention="auto")
    torch.compiler.reset()
    graph = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(graph(tokens, tokens), model(tokens, tokens))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(graph(tokens, tokens), model(tokens, tokens))


@torch.no_grad()
def test_a_whole_graph_holds_flex_with_its_mask():
    *_, documents = seen_by("documents", 140)
    tokens, model = torch.randint(17, (2, 140)), NGPT(replace(DIMS, n_layers=1), attention="flex")
    torch.compiler.reset()
    graph = torch.compile(model, backend="aot_eager", fullgraph=True)(tokens, documents=documents)
    model.attend = EAGER
    torch.testing.assert_close(graph, model(tokens, documents=documents), rtol=1e-4, atol=1e-5)


@pytest.fixture
def flash_attn(monkeypatch):
    """The package, with the formula in place of its kernel; the last queries see all keys, as since its version 2.1."""

    def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
        assert (dropout_p, causal) == (0.0, True)
        return eager(*(x.transpose(1, 2) for x in (q, k, v)), None, softmax_scale, 0.0).transpose(1, 2)

    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.mark.usefixtures("flash_attn")
@pytest.mark.parametrize("kind", ["causal", "cache", "one query"])
def test_flash_attn_gets_the_layout_and_scale_it_wants(kind):
    queries, keys, *_ = seen_by(kind, 140)
    tensors = qkv(4, 4, 2, queries, keys)
    torch.testing.assert_close(with_gradients(flash, *tensors, None), with_gradients(eager, *tensors, None))
    torch.compiler.reset()
    whole = torch.compile(flash, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*tensors, None, 0.3, 0.0), eager(*tensors, None, 0.3, 0.0))


def test_flash_attn_that_is_not_installed_is_asked_for():
    with pytest.raises(InputError, match=r"attention is 'flash', and flash-attn 2 \(pip install .* is not installed"):
        flash(*qkv(4, 2, 2, 3, 3), None, 1.0, 0.0)


def one_after_the_other(q, k, v, ends_q, ends_k, longest_q, longest_k, *, scale=None, window_size=(-1, -1)):
    """torch's varlen_attn (T, H, D), sequence by sequence."""
    assert window_size == (-1, 0)
    assert ends_q.dtype == ends_k.dtype == torch.int32
    assert q.shape[1] == k.shape[1] == v.shape[1]
    parts = []
    for (a, b), (c, d) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        assert b - a <= longest_q
        assert d - c <= longest_k
        alone = (x[None].transpose(1, 2) for x in (q[a:b], k[c:d], v[c:d]))
        parts.append(eager(*alone, None, scale, 0.0)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["causal", "documents", "cache", "one query"])
def test_varlen_lays_documents_end_to_end(kind, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", one_after_the_other)
    queries, keys, _, documents = seen_by(kind, 140)
    tensors = qkv(5, 4, 2, queries, keys)
    ends = document_ends(queries, keys, None, CPU, documents)
    expected = with_gradients(eager, *tensors, causal_mask(queries, keys, None, CPU, documents))
    torch.testing.assert_close(with_gradients(varlen, *tensors, ends), expected)


def masked_by_ends(q, k, v, ends_q, ends_k, longest_q, longest_k, *, scale=None, window_size=(-1, -1)):
    """torch's varlen_attn without a loop, as a graph wants it."""
    numbers = torch.searchsorted(ends_q, torch.arange(q.shape[0], dtype=torch.int32), right=True)
    mask = causal_mask(q.shape[0], k.shape[0], None, CPU, numbers[None])
    return eager(*(x[None].transpose(1, 2) for x in (q, k, v)), mask, scale, 0.0)[0].transpose(0, 1)


def test_a_whole_graph_holds_varlen_however_many_documents_there_are(monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", masked_by_ends)
    monkeypatch.setattr("torch._dynamo.config.capture_dynamic_output_shape_ops", False)
    function = ATTENTION["varlen"]
    function.make_ready()
    model = NGPT(replace(DIMS, n_layers=1))
    model.attend = replace(function, limits=attend_function.Limits())
    torch.compiler.reset()
    graph = torch.compile(model, backend="aot_eager", fullgraph=True)
    tokens = torch.randint(17, (2, 40))
    for seed in range(3):
        *_, documents = seen_by("documents", 40, seed)
        loss, expected = graph(tokens, tokens, documents=documents), model(tokens, tokens, documents=documents)
        torch.testing.assert_close(loss, expected)
        loss.backward()
