import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.errors import InputError
from ngpt_lab.nn import Dims
from ngpt_lab.nn.rotary import HalfRotary

unhurried = settings(deadline=None)
# Head sizes and fractions, also those that turn an odd number of channels.
shapes = st.sampled_from([(8, 1.0), (8, 0.5), (8, 0.25), (8, 0.4), (7, 0.5), (7, 0.8), (6, 0.9), (2, 1.0), (5, 0.0)])
seeds = st.integers(0, 2**32 - 1)


def rotary(d_head, fraction, theta=10000.0):
    return HalfRotary(Dims(17, 16, 2, 4, 2, d_head, 20), fraction, theta)


def heads(seed, d_head, length=1):
    return torch.randn(1, 2, length, d_head, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turned(part, x, positions):
    return part.rotate(x, part.table(torch.tensor([positions])))


@unhurried
@given(shapes, seeds, st.lists(st.integers(0, 4000), min_size=1, max_size=5))
def test_a_rotation_keeps_every_length(shape, seed, positions):
    x = heads(seed, shape[0], len(positions))
    out = turned(rotary(*shape), x, positions)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=1e-5)


@unhurried
@given(shapes, seeds, st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_the_product_of_a_query_and_a_key_depends_on_how_far_apart_they_are(shape, seed, i, j, shift):
    part, q, k = rotary(*shape), heads(seed, shape[0]), heads(seed + 1, shape[0])
    here = (turned(part, q, [i]) * turned(part, k, [j])).sum(dim=-1)
    there = (turned(part, q, [i + shift]) * turned(part, k, [j + shift])).sum(dim=-1)
    torch.testing.assert_close(here, there, atol=1e-3, rtol=1e-4)


@unhurried
@given(shapes, seeds)
def test_channels_beyond_the_fraction_pass(shape, seed):
    d_head, fraction = shape
    turning = 2 * -(-int(d_head * fraction) // 2)
    x = heads(seed, d_head)
    out = turned(rotary(d_head, fraction), x, [3])
    assert torch.equal(out[..., turning:], x[..., turning:])
    assert (out[..., :turning] != x[..., :turning]).all()


def test_channel_i_turns_with_its_partner_by_the_position_times_its_frequency():
    x = torch.zeros(1, 1, 1, 8)
    x[..., 1] = 1.0
    out = turned(rotary(8, 0.5, theta=100.0), x, [3])[0, 0, 0]
    angle = torch.tensor(3 * 100.0 ** (-2 / 4))
    expected = torch.zeros(8)
    expected[1], expected[3] = angle.cos(), angle.sin()
    torch.testing.assert_close(out, expected)


def test_position_zero_does_not_turn():
    x = heads(0, 8)
    assert torch.equal(turned(rotary(8, 1.0), x, [0]), x)


def test_angles_are_float32_in_a_bfloat16_model():
    part = rotary(8, 1.0).bfloat16()
    out = turned(part, heads(0, 8).bfloat16(), [1001])
    assert out.dtype == torch.float32
    assert torch.equal(out, turned(rotary(8, 1.0), heads(0, 8).bfloat16().float(), [1001]))


@pytest.mark.parametrize(("d_head", "fraction"), [(5, 1.0), (1, 1.0), (8, 1.5), (8, -0.5)])
def test_a_fraction_that_turns_no_whole_pairs_is_refused(d_head, fraction):
    with pytest.raises(InputError, match=rf"rotary fraction {fraction} turns no whole pairs .* dims.d_head \({d_head}\)"):
        rotary(d_head, fraction)


@pytest.mark.parametrize("shape", [(8, 1.0), (7, 0.5), (5, 0.0)])
def test_the_gradient_is_the_rotations(shape):
    part = rotary(*shape)
    table = [x.double() for x in part.table(torch.arange(3)[None])]
    torch.autograd.gradcheck(lambda x: part.rotate(x, table), heads(5, shape[0], 3).requires_grad_())
