"""Where the three architectures start, and what the skeleton does for all of them."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.models import GPT, NGPT, Dims, Nemotron
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.models.ngpt import ScaledLogits, ScaledSwiGLU, SphereResidual
from ngpt_lab.nn.linear import WriteLinear, stream_matrices, weight_error
from ngpt_lab.nn.plain import PlainLogits, squared_relu
from ngpt_lab.nn.rotary import HalfRotary

SIZES = sorted((Path(__file__).parents[2] / "configs" / "size").glob("*.yaml"))
# The published shape: SwiGLU, full rotation.
PAPER_SHAPE = {"mlp": ScaledSwiGLU, "rotary": HalfRotary}


def size(name):
    return sized(next(file for file in SIZES if file.stem == name))


def sized(file):
    return Dims(**yaml.safe_load(file.read_text())["model"]["init_args"]["backbone"]["init_args"]["dims"])


def entries(model):
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", ["debug", "1m"])
def test_nemotron_starts_at_the_loss_of_a_uniform_guess(name):
    dims = size(name)
    ids = torch.randint(dims.vocab_size, (4, 65))
    assert Nemotron(dims)(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(math.log(dims.vocab_size), rel=0.01)


@pytest.mark.parametrize(("model", "std"), [(Nemotron, 0.0134), (GPT, 0.02), (partial(Nemotron, initializer_range=0.1), 0.1)])
def test_matrices_start_as_a_normal_cut_at_three_deviations_and_those_that_write_are_smaller(model, std):
    built = model(size("1m"))
    for _, matrix in stream_matrices(built):
        expected = std / math.sqrt(2 * 4) if isinstance(matrix, WriteLinear) else std
        assert matrix.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert matrix.weight.mean().abs() < 0.05 * expected
        assert 2.9 * expected < matrix.weight.abs().max() <= 3 * expected


def test_nemotrons_gains_are_stored_as_zero_and_nothing_has_a_bias_unless_asked(dims):
    norms = {name: p for name, p in Nemotron(dims).named_parameters() if p.ndim == 1}
    assert {name.split(".")[-2] for name in norms} == {"norm", "final"}
    assert not any(p.any() for p in norms.values())
    biased = {name.split(".")[-2] for name, p in Nemotron(dims, attention_bias=True).named_parameters() if name not in norms}
    assert {"q", "k", "v", "out"} <= biased


@pytest.mark.parametrize("file", SIZES, ids=lambda file: file.stem)
def test_partners_have_the_same_number_of_parameters(file):
    dims = sized(file)
    with torch.device("meta"):
        assert entries(NGPT(dims)) == pytest.approx(entries(Nemotron(dims)), rel=0.005)
        assert entries(NGPT(dims, **PAPER_SHAPE)) == pytest.approx(entries(GPT(dims)), rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("parts", [{}, PAPER_SHAPE])
def test_ngpt_starts_on_the_sphere_and_its_stream_stays_there(parts, dims, batch):
    model = NGPT(dims, **parts)
    assert weight_error(model) <= 2e-6
    stream = model.stream(batch[0])
    assert len(stream) == dims.n_layers + 1
    assert max((x.double().norm(dim=-1) - 1).abs().max().item() for x in stream) <= 2e-6


def test_parametrisations_start_alpha_and_s_z_where_they_say(dims):
    expected = {"ngpt-paper": (0.05, 1.0), "ngpt-short": (1 / 3, math.sqrt(24))}
    for name, (alpha, s_z) in expected.items():
        model = NGPT(Dims(53, 24, 3, 4, 2, 8, 40, name))
        for block in model.blocks:
            for residual in (block.attention_residual, block.mlp_residual):
                torch.testing.assert_close(residual.alpha().detach(), torch.full((24,), alpha))
        torch.testing.assert_close(model.lm_head.s_z().detach(), torch.full((53,), s_z))
    assert dims.parametrisation == "ngpt-paper"


def test_the_sizes_of_short_runs_say_so():
    assert {file.stem for file in SIZES if sized(file).parametrisation == "ngpt-short"} == {"debug", "1m"}


def test_a_setting_may_be_a_list_with_one_number_per_layer(dims):
    model = NGPT(dims, attention_residual=partial(SphereResidual, init=[0.1, 0.2]))
    assert [block.attention_residual.alpha().mean().item() for block in model.blocks] == pytest.approx([0.1, 0.2])
    with pytest.raises(InputError, match="lists 3 numbers for 2 layers"):
        NGPT(dims, attention_residual=partial(SphereResidual, init=[0.1, 0.2, 0.3]))


def test_the_loss_is_the_mean_over_the_targets_that_are_not_left_out(architecture, dims, batch):
    tokens, targets = batch
    model = architecture(dims)
    partly = targets.clone()
    partly[:, ::3] = -100
    kept = partly != -100
    torch.testing.assert_close(model(tokens, partly), F.cross_entropy(model(tokens)[kept], targets[kept]))
    torch.testing.assert_close(model(tokens, targets), F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize(("model", "head"), [(NGPT, ScaledLogits), (Nemotron, PlainLogits), (GPT, PlainLogits)])
def test_tied_embeddings_are_one_weight_that_is_projected_once(model, head, dims, batch):
    tied = model(dims, lm_head=partial(head, tied=True))
    assert tied.lm_head.matrix.weight is tied.embedding.weight
    assert entries(model(dims)) - entries(tied) == dims.vocab_size * dims.d_model
    names = [name for name, _ in stream_matrices(tied)]
    assert "embedding" in names
    assert "lm_head.matrix" not in names
    whole = tied(*batch)
    whole.backward()
    untouched = set(range(dims.vocab_size)) - set(batch[0].flatten().tolist())
    assert tied.embedding.weight.grad[sorted(untouched)].any(), "the gradient of the logits reaches the shared weight"
    assert whole.isfinite()


@torch.no_grad()
def test_a_model_in_bfloat16_runs_with_a_stream_of_float32(architecture, dims, batch):
    model = architecture(dims)
    expected = model(*batch).item()
    model.bfloat16()
    assert {x.dtype for x in model.stream(batch[0])} == {torch.float32}
    loss = model(*batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("name", ["eager", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_the_attention_functions_give_one_model(architecture, name, dims, batch):
    default, other = architecture(dims), architecture(dims, attention=name)
    other.load_state_dict(default.state_dict())
    torch.testing.assert_close(other(batch[0]), default(batch[0]))


def test_an_unknown_attention_is_refused(architecture, dims):
    with pytest.raises(InputError, match="attention is 'flash5': choose one of auto, sdpa"):
        architecture(dims, attention="flash5")


def test_dropout_is_for_training_alone(architecture, dims, batch):
    model = architecture(dims, attention_dropout=0.5)
    model.eval()
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


def test_reset_parameters_starts_over(architecture, dims, batch):
    model = architecture(dims)
    torch.manual_seed(5)
    twin = architecture(dims)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    torch.manual_seed(5)
    model.reset_parameters()
    assert torch.equal(model(*batch), twin(*batch))


def test_ngpt_differs_from_nemotron_in_the_sphere_alone(dims):
    ours, theirs = NGPT(dims), Nemotron(dims)
    shapes = [{name: p.shape for name, p in model.named_parameters() if p.ndim > 1} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert {name.split(".")[-2] for name, p in ours.named_parameters() if p.ndim == 1} == {"alpha", "s_qk", "s_u", "s_z"}
    assert ours.rotary.channels == theirs.rotary.channels == dims.d_head // 2
    assert {block.mlp.activation for model in (ours, theirs) for block in model.blocks} == {squared_relu}


def test_flops_follow_the_stated_formula(dims):
    # By hand: per layer q 24*32, k and v 24*16, out 32*24, up and down 24*40; the output embedding 53*24; two layers.
    entries_that_multiply = 2 * (24 * 32 + 2 * 24 * 16 + 32 * 24 + 2 * 24 * 40) + 53 * 24
    attention = 2 * 10 * 32
    assert flops_per_token(Nemotron(dims), seq_len=10) == 6 * entries_that_multiply + 6 * attention
    assert flops_per_token(NGPT(dims), seq_len=10) == flops_per_token(Nemotron(dims), seq_len=10)
    gated = 6 * 2 * 24 * 40
    assert flops_per_token(GPT(dims), seq_len=10) == flops_per_token(Nemotron(dims), seq_len=10) + gated
    tied = Nemotron(dims, lm_head=partial(PlainLogits, tied=True))
    assert flops_per_token(tied, seq_len=10) == flops_per_token(Nemotron(dims), seq_len=10)
