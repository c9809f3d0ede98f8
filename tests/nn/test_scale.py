import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.errors import InputError
from ngpt_lab.nn import Dims
from ngpt_lab.nn.scale import Scale, absolute, resolve, signed

DIMS = Dims(vocab_size=17, d_model=16, n_layers=4, n_heads=4, n_kv_heads=2, d_head=6, d_ff=20)
GRANULARITIES = ("vector", "scalar", "fixed")

starts = st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)


@settings(deadline=None)
@given(starts, st.floats(1e-3, 1e3), st.sampled_from(GRANULARITIES))
def test_the_used_value_starts_at_init_whatever_is_stored(init, stored, granularity):
    scale = Scale(5, init, stored, granularity, "stream")
    assert scale.stored.shape == (5 if granularity == "vector" else 1,)
    torch.testing.assert_close(scale.stored.detach(), torch.full_like(scale.stored, stored))
    torch.testing.assert_close(scale().detach(), torch.full_like(scale.stored, init))


@pytest.mark.parametrize("granularity", ["vector", "scalar"])
def test_adam_moves_the_used_value_by_the_gain_times_the_learning_rate(granularity):
    scale = Scale(5, 0.05, 0.25, granularity, "stream")
    optimizer = torch.optim.Adam(scale.parameters(), lr=0.01)
    scale().sum().backward()
    optimizer.step()
    torch.testing.assert_close(scale().detach(), torch.full_like(scale.stored, 0.05 - (0.05 / 0.25) * 0.01))
    scale.reset_parameters()
    torch.testing.assert_close(scale().detach(), torch.full_like(scale.stored, 0.05))


def test_a_scale_of_one_number_learns_from_every_entry_and_a_fixed_one_from_none():
    channels = torch.arange(5.0)
    scalar, fixed = Scale(5, 1.0, 0.5, "scalar", "hidden"), Scale(5, 1.0, 0.5, "fixed", "hidden")
    (scalar() * channels).sum().backward()
    assert scalar.stored.grad is not None
    torch.testing.assert_close(scalar.stored.grad, torch.tensor([20.0]))
    assert not fixed().requires_grad


@pytest.mark.parametrize(
    ("setting", "number"),
    [(0.3, 0.3), (2, 2.0), ("1/sqrt(d_model)", 0.25), ("sqrt(d_model)", 4.0), ("1/n_layers", 0.25), ([1, 2, 3, 4], 3.0)],
)
def test_a_setting_is_a_number_a_rule_of_the_sizes_or_one_number_per_layer(setting, number):
    assert resolve(setting, DIMS, layer=2) == number


@pytest.mark.parametrize("numbers", [[], [1.0], [1.0] * 5])
def test_a_list_of_another_length_than_the_layers_is_refused(numbers):
    with pytest.raises(InputError, match=rf"lists {len(numbers)} numbers for 4 layers"):
        resolve(numbers, DIMS)


def test_alpha_is_absolute_or_signed():
    alpha = torch.tensor([-0.5, 0.0, 0.25])
    assert absolute(alpha).tolist() == [0.5, 0.0, 0.25]
    assert signed(alpha).tolist() == alpha.tolist()
