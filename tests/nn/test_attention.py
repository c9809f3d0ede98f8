"""Masks, caches and the sublayer around an attention function."""

import pytest
import torch

from ngpt_lab.nn import Dims
from ngpt_lab.nn.attend_blocked import blocked
from ngpt_lab.nn.attend_formula import eager
from ngpt_lab.nn.attend_sdpa import sdpa
from ngpt_lab.nn.attention import Attention, Context, GrowingCache
from ngpt_lab.nn.masks import causal_mask
from ngpt_lab.nn.plain import NoQKNorm, OwnValue

CPU = torch.device("cpu")


def qkv(seed, batch=2, heads=4, kv_heads=2, queries=5, keys=5, d_head=8, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    return [torch.randn(batch, *shape, d_head, generator=draw, dtype=dtype) for shape in shapes]


def padding(batch, keys):
    """Row b hides its first b positions."""
    return (torch.arange(keys)[None, :] >= torch.arange(batch)[:, None]).long()


@pytest.mark.parametrize("attend", [eager, blocked, sdpa])
def test_neighbouring_query_heads_share_a_key_head(attend):
    q, k, v = qkv(0)
    grouped = attend(q, k, v, None, 0.3, 0.0)
    each = torch.cat([attend(q[:, [h]], k[:, [h // 2]], v[:, [h // 2]], None, 0.3, 0.0) for h in range(4)], dim=1)
    torch.testing.assert_close(grouped, each)


@pytest.mark.parametrize("attend", [eager, blocked, sdpa])
def test_nothing_is_seen_of_later_positions(attend):
    q, k, v = qkv(1)
    before = attend(q, k, v, None, 0.3, 0.0)
    k[:, :, 3:], v[:, :, 3:] = 7.0, -7.0
    after = attend(q, k, v, None, 0.3, 0.0)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:])


@pytest.mark.parametrize("attend", [eager, blocked, sdpa])
def test_a_hidden_position_is_not_seen_and_a_row_with_nothing_to_see_is_finite_with_its_gradient(attend):
    q, k, v = qkv(2, batch=3)
    visible = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
    mask = causal_mask(5, 5, visible, CPU)
    k.requires_grad_()
    out = attend(q, k, v, mask, 0.3, 0.0)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert k.grad is not None
    assert k.grad.isfinite().all()
    alone = attend(q[1:2, :, 2:], k[1:2, :, 2:], v[1:2, :, 2:], None, 0.3, 0.0)
    torch.testing.assert_close(out[1:2, :, 2:], alone)


def test_dropout_falls_on_the_weights():
    q, k, v = qkv(3)
    for attend in (eager, blocked, sdpa):
        torch.manual_seed(0)
        assert not torch.allclose(attend(q, k, v, None, 0.3, 0.5), attend(q, k, v, None, 0.3, 0.0))


def test_plain_causal_attention_needs_no_mask_and_a_longer_cache_does():
    assert causal_mask(4, 4, None, CPU) is None
    assert causal_mask(2, 4, None, CPU).int().tolist() == [[[[1, 1, 1, 0], [1, 1, 1, 1]]]]
    hidden = causal_mask(2, 4, torch.tensor([[0, 1, 1, 0]]), CPU)
    assert hidden.int().tolist() == [[[[0, 1, 1, 0], [0, 1, 1, 0]]]]


def test_a_position_that_would_see_nothing_sees_itself():
    hidden = causal_mask(3, 3, torch.tensor([[0, 0, 1]]), CPU)
    assert hidden.int().tolist() == [[[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]]


def test_a_cache_grows_by_layer_and_returns_all_it_holds():
    cache, (_, k, v) = GrowingCache(), qkv(6)
    assert cache.get_seq_length() == 0
    for layer in (0, 1):
        cache.update(k[:, :, :3], v[:, :, :3], layer)
    keys, values = cache.update(k[:, :, 3:], v[:, :, 3:], 0)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)
    assert cache.get_seq_length() == 5
    assert cache.update(k, v, 1)[0].shape[-2] == 8


def test_the_sublayer_is_the_formula_with_its_dropout_in_training_only():
    dims = Dims(vocab_size=17, d_model=12, n_layers=1, n_heads=4, n_kv_heads=2, d_head=6, d_ff=20)
    layer = Attention(dims, 0, NoQKNorm, OwnValue, bias=True, dropout=0.5)
    torch.manual_seed(0)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    context, x = Context(lambda heads: heads, None, None, eager), torch.randn(2, 5, 12)
    y, own = layer.eval()(x, context, None)
    q, k, v = (p(x).view(2, 5, -1, 6).transpose(1, 2) for p in (layer.q, layer.k, layer.v))
    expected = eager(q, k, v, None, 6**-0.5, 0.0).transpose(1, 2).reshape(2, 5, 24)
    torch.testing.assert_close(y, layer.out(expected))
    assert torch.equal(own, v)
    assert not torch.allclose(layer.train()(x, context, None)[0], y)
