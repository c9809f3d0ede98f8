import pytest
import torch
from torch import nn

from ngpt_lab.nn.linear import ReadLinear, TokenEmbedding, WriteLinear, as_unit, project, stream_matrices, weight_error
from ngpt_lab.sphere import unit


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def filled(part):
    part.reset_parameters()
    if getattr(part, "bias", None) is not None:
        nn.init.normal_(part.bias)
    return part


@pytest.mark.parametrize("kind", [ReadLinear, WriteLinear])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("entries", [9, 1])
def test_a_folded_scale_multiplies_the_output(kind, bias, entries):
    linear, x, scale = filled(kind(6, 9, bias)).double(), torch.randn(2, 3, 6).double(), torch.randn(entries).double()
    torch.testing.assert_close(linear(x, scale), linear(x) * scale)


@pytest.mark.parametrize("part", [ReadLinear(8, 12), WriteLinear(12, 8), TokenEmbedding(12, 8)])
def test_norm_dim_is_the_dimension_of_the_streams_width(part):
    assert part.weight.shape[part.norm_dim] == 8


def test_normalising_in_the_forward_pass_uses_unit_vectors_and_trains_what_is_stored():
    linear, x = filled(ReadLinear(6, 9)).double(), torch.randn(4, 6).double()
    linear.used_as = as_unit
    torch.testing.assert_close(linear(x), x @ unit(linear.weight).T)
    linear(x).square().sum().backward()
    assert linear.weight.grad is not None
    # A gradient along the sphere: the length of a row changes nothing.
    torch.testing.assert_close((linear.weight.grad * linear.weight).sum(dim=1), torch.zeros(9).double())


def test_the_embedding_is_looked_up_and_widened():
    embedding = filled(TokenEmbedding(7, 4)).bfloat16()
    tokens = torch.tensor([[0, 6, 3]])
    out = embedding(tokens)
    assert out.dtype == torch.float32
    assert torch.equal(out, embedding.weight[tokens].float())


def test_projection_reaches_every_matrix_once_and_leaves_vectors_alone():
    matrices = {"a": TokenEmbedding(7, 4), "b": ReadLinear(4, 7, True), "c": WriteLinear(6, 4)}
    model = nn.ModuleDict(matrices | {"n": nn.LayerNorm(4)})
    for name in "abc":
        filled(model[name])
    model["b"].weight = model["a"].weight
    bias = model["b"].bias.clone()
    assert [name for name, _ in stream_matrices(model)] == ["a", "c"]
    assert weight_error(model) > 0.1
    project(model)
    assert weight_error(model) <= 2e-6
    assert torch.equal(model["b"].bias, bias)
    assert torch.equal(model["n"].weight, torch.ones(4))


def test_the_weight_error_is_the_largest_departure_from_length_one():
    linear = filled(ReadLinear(6, 9))
    project(linear)
    with torch.no_grad():
        linear.weight[3] *= 1.25
        linear.weight[5] *= 0.9
    assert weight_error(linear) == pytest.approx(0.25, abs=1e-6)
