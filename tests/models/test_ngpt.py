"""The parts of nGPT against the paper's equations, written out once more with matrices and numbers."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from ngpt_lab.models.ngpt import ScaledLogits, ScaledSwiGLU, ScaledUngatedMLP, SphereResidual, UnitQKNorm
from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.scale import Scale, signed
from ngpt_lab.sphere import lerp, riemannian, slerp


def norm(x):
    return F.normalize(x, dim=-1)


def stirred(part):
    """The part in float64, everything it learns drawn anew."""
    for module in part.modules():
        if isinstance(module, ReadLinear | WriteLinear | Scale):
            for p in module.parameters():
                torch.nn.init.normal_(p)
    return part.double()


@pytest.fixture
def x(dims):
    return norm(torch.randn(2, 5, dims.d_model).double())


@pytest.fixture
def y(dims):
    return 3 * torch.randn(2, 5, dims.d_model).double()


@pytest.mark.parametrize("path", [lerp, slerp, riemannian])
def test_a_sublayer_moves_the_stream_by_its_eigen_learning_rates(path, dims, x, y):
    part = stirred(SphereResidual(dims, 0, path=path, init=0.3))
    alpha = (part.alpha.stored * 0.3 * 24**0.5).abs()
    torch.testing.assert_close(part.write(x, y), norm(path(x, norm(y), alpha)))
    torch.testing.assert_close(part.write(x, 5 * y), part.write(x, y))
    assert part.read(x) is x


def test_signed_eigen_learning_rates_may_move_away(dims, x, y):
    part = SphereResidual(dims, 0, sign=signed, init=-0.3).double()
    torch.testing.assert_close(part.write(x, y), norm(1.3 * x - 0.3 * norm(y)))


def test_queries_and_keys_are_unit_vectors_with_the_scale_squared_on_the_queries(dims):
    part = stirred(UnitQKNorm(dims, 0, init=0.5))
    q, k = torch.randn(2, 4, 5, 8).double(), torch.randn(2, 2, 5, 8).double()
    scale = (part.s_qk.stored * 0.5 * 24**0.5).reshape(4, 1, 8)
    scaled, unit = part(q, k)
    torch.testing.assert_close(scaled, norm(q) * scale * scale)
    torch.testing.assert_close(unit, norm(k))
    assert part.softmax_scale == 8**0.5
    one = UnitQKNorm(dims, 0, init=0.5, granularity="scalar").double()
    torch.testing.assert_close(one(q, k)[0], norm(q) * 0.25)


def test_the_ungated_mlp_scales_what_the_squared_relu_sees(dims, x):
    part = stirred(ScaledUngatedMLP(dims, 0, bias=True))
    hidden = part.s_u.stored * 24**0.5 * (x @ part.up.weight.T + part.up.bias)
    torch.testing.assert_close(part(x), hidden.clamp_min(0) ** 2 @ part.down.weight.T + part.down.bias)


def test_the_gated_mlp_scales_the_gate_by_the_root_of_the_width(dims, x):
    part = stirred(ScaledSwiGLU(dims, 0))
    u, v = part.s_u.stored * (x @ part.up.weight.T), part.s_v.stored * 24**0.5 * (x @ part.gate.weight.T)
    torch.testing.assert_close(part(x), (u * F.silu(v)) @ part.down.weight.T)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_scaled_per_token(tied, dims, x):
    embedding = torch.nn.Parameter(torch.randn(53, 24))
    part = stirred(partial(ScaledLogits, tied=tied, init=2.0)(dims, embedding))
    features, matrix = part(x)
    weight = part.matrix.weight
    torch.testing.assert_close(features @ matrix.T, (x @ weight.T) * part.s_z.stored * 2.0 * 24**0.5)
    assert torch.equal(weight, embedding) == tied
