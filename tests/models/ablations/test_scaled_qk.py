import torch

from ngpt_lab.models import Dims
from ngpt_lab.models.ablations.scaled_qk import ScaledQK
from ngpt_lab.models.ngpt import UnitQKNorm
from ngpt_lab.sphere import unit

DIMS = Dims(vocab_size=53, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)


def test_without_qk_norm_the_scale_and_the_softmax_scale_stay():
    torch.manual_seed(0)
    bare, normed = ScaledQK(DIMS, 0), UnitQKNorm(DIMS, 0)
    with torch.no_grad():
        bare.s_qk.stored.normal_()
    normed.load_state_dict(bare.state_dict())
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    torch.testing.assert_close(bare(unit(q), unit(k)), normed(q, k))
    torch.testing.assert_close(bare(3 * q, k)[0], 3 * bare(q, k)[0])
    assert torch.equal(bare(q, k)[1], k)
    assert bare.softmax_scale == normed.softmax_scale == 8**0.5
