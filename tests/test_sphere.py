"""The geometry: where the paths go, how exact they are, and what happens at their edges."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from ngpt_lab.sphere import ENTRIES, length, lerp, riemannian, slerp, unit

PATHS = {"lerp": lerp, "slerp": slerp, "riemannian": riemannian}

unhurried = settings(deadline=None)
seeds = st.integers(0, 2**32 - 1)
widths = st.integers(2, 40)
shares = st.floats(0.0, 1.0)


def vectors(seed: int, width: int, count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(3, width, generator=draw, dtype=dtype) for _ in range(count)]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between unit vectors, exact also near 0 and pi."""
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


@unhurried
@given(seeds, widths, st.floats(-15, 15), st.sampled_from([0, 1]))
def test_unit_gives_vectors_of_length_one_of_the_same_direction(seed, width, exponent, dim):
    x = vectors(seed, width, 1)[0] * 10**exponent
    u = unit(x, dim)
    torch.testing.assert_close(torch.linalg.vector_norm(u, dim=dim), torch.ones(x.shape[1 - dim], dtype=x.dtype))
    torch.testing.assert_close(u * length(x, dim), x)


@unhurried
@given(seeds, st.tuples(*3 * [st.integers(1, 3 * ENTRIES)]), st.sampled_from([-1, 0, 1, 2]))
def test_a_length_along_any_dimension_is_torch_s(seed, shape, dim):
    shape = tuple(size if at == dim % 3 else size % 5 for at, size in enumerate(shape))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(length(x, dim), torch.linalg.vector_norm(x, dim=dim, keepdim=True))


@unhurried
@given(seeds, widths, st.floats(-12, 12), st.sampled_from([torch.float32, torch.float64]))
def test_the_clamp_leaves_the_bits_of_non_zero_vectors_alone(seed, width, exponent, dtype):
    x = vectors(seed, width, 1, dtype)[0] * 10**exponent
    assert torch.equal(unit(x), x / torch.linalg.vector_norm(x, dim=-1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_zero_stays_zero(dtype):
    zero = torch.zeros(2, 8, dtype=dtype)
    assert not unit(zero).any()
    assert not unit(zero, eps=1e-6).any()
    assert not slerp(zero, zero, torch.tensor(0.3)).any()


def test_eps_is_added_to_the_length():
    torch.testing.assert_close(unit(torch.tensor([3.0, 4.0]), eps=1.0), torch.tensor([0.5, 4 / 6]))


@pytest.mark.parametrize("path", [unit, slerp, riemannian])
def test_bfloat16_comes_out_as_float32_also_under_autocast(path):
    a, b = (x.bfloat16() for x in vectors(0, 64, 2))
    arguments = (a,) if path is unit else (a, b, torch.tensor(0.3))
    with torch.autocast("cpu", torch.bfloat16):
        out = path(*arguments)
    assert out.dtype == torch.float32
    assert torch.equal(out, path(*(x.float() for x in arguments)))


def test_float32_keeps_its_precision_under_autocast():
    x = vectors(0, 256, 1, torch.float32)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert (unit(x).double().norm(dim=-1) - 1).abs().max() < 1e-6


@unhurried
@given(seeds, widths)
def test_paths_start_at_a_and_end_at_b(seed, width):
    a, b = (unit(x) for x in vectors(seed, width, 2))
    start, end = torch.tensor(0.0, dtype=a.dtype), torch.tensor(1.0, dtype=a.dtype)
    for path in PATHS.values():
        torch.testing.assert_close(path(a, b, start), a)
    for path in (lerp, slerp):
        torch.testing.assert_close(path(a, b, end), b)


@unhurried
@given(seeds, widths, shares)
def test_lerp_and_slerp_are_the_same_from_either_end(seed, width, t):
    a, b = vectors(seed, width, 2)
    there, back = torch.tensor(t, dtype=a.dtype), torch.tensor(1 - t, dtype=a.dtype)
    for path in (lerp, slerp):
        torch.testing.assert_close(path(a, b, there), path(b, a, back), atol=1e-7, rtol=1e-6)


@unhurried
@given(seeds, widths, shares)
def test_slerp_turns_t_times_the_angle_in_the_plane_of_its_ends(seed, width, t):
    a, b = vectors(seed, width, 2)
    whole = angle(unit(a), unit(b))
    assume(bool((whole > 1e-3).all() and (whole < math.pi - 1e-3).all()))
    out = slerp(a, b, torch.tensor(t, dtype=a.dtype))
    torch.testing.assert_close(out.norm(dim=-1), torch.ones_like(whole))
    torch.testing.assert_close(angle(unit(a), out), t * whole, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(angle(out, unit(b)), (1 - t) * whole, atol=1e-7, rtol=1e-7)
    plane, _ = torch.linalg.qr(torch.stack((a, b), dim=-1))
    torch.testing.assert_close((plane @ (plane.mT @ out[..., None]))[..., 0], out)


@unhurried
@given(seeds, widths, shares)
def test_the_riemannian_step_leaves_along_the_tangent_in_the_plane(seed, width, t):
    a, b = (unit(x) for x in vectors(seed, width, 2))
    step = riemannian(a, b, torch.tensor(t, dtype=a.dtype)) - a
    torch.testing.assert_close((step * a).sum(dim=-1), torch.zeros(3, dtype=a.dtype), atol=1e-12, rtol=0)
    torch.testing.assert_close(step.norm(dim=-1), t * torch.sin(angle(a, b)), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(step, t * (b - a * (a * b).sum(dim=-1, keepdim=True)))


@unhurried
@given(seeds)
def test_a_channel_moves_at_its_own_rate(seed):
    a, b = (unit(x) for x in vectors(seed, 6, 2))
    rates = torch.linspace(0, 1, 6, dtype=a.dtype)
    for path in PATHS.values():
        alone = [path(a, b, rate)[:, channel] for channel, rate in enumerate(rates)]
        torch.testing.assert_close(path(a, b, rates), torch.stack(alone, dim=-1))


@pytest.mark.parametrize("name", PATHS)
def test_gradients_of_paths_are_right(name):
    a, b = (x.requires_grad_() for x in vectors(1, 5, 2))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).requires_grad_()
    assert gradcheck(PATHS[name], (a, b, t))


@pytest.mark.parametrize(("dim", "eps"), [(0, 0.0), (-1, 0.0), (-1, 0.5)])
def test_gradients_of_unit_are_right(dim, eps):
    x = vectors(2, 5, 1)[0].requires_grad_()
    assert gradcheck(lambda x: unit(x, dim, eps), (x,))


@unhurried
@given(seeds, st.sampled_from([1.0, -1.0]), st.sampled_from([0.0, 1e-8, 1e-4]), st.sampled_from([torch.float32, torch.float64]))
def test_slerp_is_finite_with_its_gradient_where_the_ends_coincide_or_oppose(seed, sign, apart, dtype):
    a, off = vectors(seed, 16, 2, dtype)
    b = sign * a + apart * off
    leaves = [a.requires_grad_(), b.detach().requires_grad_(), torch.full((16,), 0.3, dtype=dtype, requires_grad=True)]
    out = slerp(*leaves)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_slerp_where_its_ends_coincide_stays_there():
    a = unit(vectors(3, 16, 1)[0])
    torch.testing.assert_close(slerp(a, a, torch.tensor(0.3, dtype=a.dtype)), a)
