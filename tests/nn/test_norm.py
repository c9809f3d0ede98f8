import pytest
import torch
from torch import nn

from ngpt_lab.nn import Dims
from ngpt_lab.nn.norm import LayerNorm1p, NoFinal, RMSNorm

DIMS = Dims(vocab_size=17, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_head=4, d_ff=20)


@pytest.fixture
def x():
    return 3 * torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_layer_norm_1p_is_torchs_layer_norm_with_a_gain_of_one_more_than_stored(x, eps):
    ours, torchs = LayerNorm1p(DIMS, eps).double(), nn.LayerNorm(16, eps).double()
    assert not ours.weight.any()
    torch.testing.assert_close(ours(x), torchs(x))
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
        torchs.weight.copy_(ours.weight + 1)
        torchs.bias.copy_(ours.bias)
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rms_norm_is_torchs_own(x, eps):
    ours, torchs = RMSNorm(DIMS, eps).double(), nn.RMSNorm(16, eps).double()
    torch.testing.assert_close(ours(x), torchs(x))
    with torch.no_grad():
        torchs.weight.copy_(ours.weight.normal_())
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("norm", [LayerNorm1p, RMSNorm])
def test_norms_of_bfloat16_weights_are_computed_in_float32(x, norm):
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(DIMS).bfloat16()(x.bfloat16())
    assert out.dtype == torch.float32
    assert torch.equal(out, norm(DIMS)(x.bfloat16().float()))


def test_no_final_is_the_stream_itself(x):
    assert NoFinal(DIMS)(x) is x
