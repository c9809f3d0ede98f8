import torch

from ngpt_lab.models import NGPT, Dims
from ngpt_lab.models.ablations.value_residual import ValueResidual

DIMS = Dims(vocab_size=53, d_model=24, n_layers=3, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)


def test_every_layer_attends_to_the_mean_of_its_own_and_the_first_layers_values():
    torch.manual_seed(0)
    model, seen, made = NGPT(DIMS, value=ValueResidual), [], []
    for block in model.blocks:
        block.attention.value.register_forward_hook(lambda _part, given, out: seen.append((*given, out)))
        block.attention.v.register_forward_hook(lambda _part, _given, out: made.append(out))
    model(torch.randint(53, (2, 7)))
    own = [v.unflatten(-1, (2, 8)).transpose(1, 2) for v in made]
    for layer, (v, first, out) in enumerate(seen):
        assert torch.equal(v, own[layer])
        assert torch.equal(first, own[0])
        torch.testing.assert_close(out, (own[layer] + own[0]) / 2)
    assert len(seen) == 3
