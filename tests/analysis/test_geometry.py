"""Planted norms, spectra and angles are found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ngpt_lab.analysis.geometry import (
    condition_numbers,
    embedding_eigenvalues,
    matrices,
    matrix_norms,
    pairwise_dots,
    place,
    singular_values,
)
from ngpt_lab.models import GPT, NGPT, Decoder, Dims, Nemotron
from ngpt_lab.models.ngpt import ScaledLogits
from ngpt_lab.nn.linear import ReadLinear, as_unit, stream_matrices

DIMS = Dims(vocab_size=53, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)
HEADS = {"query": 4, "key": 2, "value": 2}
ALL = {"input_embedding", "output_embedding", "query", "key", "value", "attention_output", "mlp_up", "mlp_down"}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def fill(matrix: ReadLinear, weight: Tensor) -> None:
    with torch.no_grad():
        matrix.weight.copy_(weight)


def orthogonal(rows: int, columns: int) -> Tensor:
    return torch.nn.init.orthogonal_(torch.empty(rows, columns, dtype=torch.float64))


@pytest.mark.parametrize(("architecture", "kinds"), [(NGPT, ALL), (Nemotron, ALL), (GPT, ALL | {"mlp_gate"})])
def test_every_matrix_of_every_architecture_is_found_by_its_place(architecture: type[Decoder], kinds: set[str]):
    norms = matrix_norms(architecture(DIMS))
    assert set(norms["kind"]) == kinds
    in_blocks = ~norms["kind"].str.endswith("embedding")
    assert set(norms[in_blocks]["layer"]) == {0, 1}
    assert set(norms[~in_blocks]["layer"]) == {-1}
    sizes = norms.groupby(["kind", "layer"])["norm"].size()
    assert (sizes["mlp_down", 1], sizes["key", 0], sizes["output_embedding", -1]) == (40, 16, 53)


def test_a_matrix_that_holds_two_is_taken_apart():
    decoder = GPT(DIMS)
    fused = torch.nn.Module()
    fused.up_gate = ReadLinear(DIMS.d_model, 2 * DIMS.d_ff)
    fused.up_gate.reset_parameters()
    decoder.blocks[1].mlp = fused
    found = {matrix.kind: matrix.vectors for matrix in matrices(decoder) if matrix.layer == 1}
    halves = torch.cat([found["mlp_up"], found["mlp_gate"]])
    assert torch.equal(halves, fused.up_gate.weight.double())
    assert place("blocks.3.mlp.experts.0") == (("mlp_experts_0",), 3)


def test_norms_on_the_sphere_are_one_and_planted_ones_come_sorted():
    assert matrix_norms(NGPT(DIMS))["norm"].to_numpy() == pytest.approx(1, abs=1e-6)
    decoder = Nemotron(DIMS)
    decoder.embedding.weight.data = torch.eye(53, 24) * torch.arange(53)[:, None]
    norms = matrix_norms(decoder)
    own = norms[norms["kind"] == "input_embedding"]
    assert own["norm"].tolist() == [float(n) for n in [*range(23, 0, -1), *[0] * 30]]
    assert own["rank"].tolist() == pytest.approx(np.linspace(0, 1, 53))


def test_weights_count_as_the_forward_pass_uses_them():
    decoder = Nemotron(DIMS, weights=as_unit)
    assert matrix_norms(decoder)["norm"].to_numpy() == pytest.approx(1, abs=1e-6)
    stored = torch.linalg.vector_norm(decoder.embedding.weight, dim=1)
    assert (stored - 1).abs().max() > 0.1


def test_planted_singular_values_are_found_in_each_head():
    decoder = Nemotron(DIMS)
    planted = torch.logspace(0, -5, 8, dtype=torch.float64)
    for matrix, heads in ((decoder.blocks[1].attention.q, 4), (decoder.blocks[0].attention.v, 2)):
        made = [orthogonal(8, 8) @ torch.diag(planted * (head + 1)) @ orthogonal(8, 24) for head in range(heads)]
        fill(matrix, torch.cat(made))
    found = singular_values(decoder).groupby(["kind", "layer", "head"])["value"].apply(np.array)
    for head in range(4):
        # The weights are float32, so the smallest of five decades is off by a few parts in a thousand.
        assert found["query", 1, head] == pytest.approx((planted * (head + 1)).numpy(), rel=1e-2)
    assert found["value", 0, 1] == pytest.approx((planted * 2).numpy(), rel=1e-2)
    conditions = condition_numbers(decoder).query("kind == 'query' and layer == 1")["condition"]
    assert conditions.to_list() == pytest.approx([1e5] * 4, rel=1e-2)


def test_only_queries_keys_and_values_come_by_head():
    conditions = condition_numbers(NGPT(DIMS))
    heads = conditions[conditions["layer"] == 1].groupby("kind")["head"].apply(list)
    assert {kind: heads[kind] for kind in HEADS} == {kind: list(range(count)) for kind, count in HEADS.items()}
    assert heads["attention_output"] == heads["mlp_up"] == heads["mlp_down"] == [-1]


def test_orthogonal_heads_have_condition_one_and_stretched_ones_once_renormalised():
    decoder = GPT(DIMS)
    stretch = torch.linspace(1, 50, 8, dtype=torch.float64)[:, None]
    for _, part in stream_matrices(decoder):
        part.weight.data = orthogonal(*part.weight.shape).float()
    for block in decoder.blocks:
        fill(block.attention.q, torch.cat([orthogonal(8, 24) for _ in range(4)]))
        fill(block.attention.k, torch.cat([stretch * orthogonal(8, 24) for _ in range(2)]))
    as_used = condition_numbers(decoder).groupby("kind")["condition"]
    assert as_used.max().drop("key").to_numpy() == pytest.approx(1, abs=1e-4)
    assert as_used.min()["key"] == pytest.approx(50, rel=1e-4)
    renormalized = condition_numbers(decoder, renormalized=True)
    assert renormalized[renormalized["kind"] == "key"]["condition"].to_numpy() == pytest.approx(1, abs=1e-4)


def test_a_matrix_without_full_rank_has_an_infinite_or_huge_condition():
    decoder = GPT(DIMS)
    fill(decoder.blocks[0].attention.q, torch.zeros(32, 24))
    decoder.blocks[0].attention.q.weight.data[::8] = 1.0
    conditions = condition_numbers(decoder).query("kind == 'query' and layer == 0")["condition"]
    assert (conditions > 1e15).all()


def test_planted_covariance_is_found_whatever_the_mean_of_the_embeddings():
    decoder = Nemotron(DIMS)
    variances = torch.linspace(3, 1, 24, dtype=torch.float64)
    vectors = orthogonal(53, 25)
    vectors -= vectors.mean(dim=0)  # orthonormal columns again, of mean zero
    vectors = torch.linalg.qr(vectors).Q[:, :24]
    decoder.embedding.weight.data = (vectors * variances.sqrt() @ orthogonal(24, 24) + 7).float()
    values = embedding_eigenvalues(decoder).set_index("kind")["value"].loc["input_embedding"].to_numpy()
    assert values == pytest.approx((variances / variances.quantile(0.5)).numpy(), rel=1e-4)


def test_few_tokens_give_only_the_eigenvalues_they_can_have():
    few = NGPT(Dims(vocab_size=9, d_model=24, n_layers=1, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40))
    values = embedding_eigenvalues(few)
    assert values.groupby("kind").size().to_dict() == {"input_embedding": 8, "output_embedding": 8}
    assert values["value"].between(1e-3, 1e3).all()


def test_orthonormal_embeddings_have_no_dot_products_and_all_pairs_are_there():
    decoder = NGPT(Dims(vocab_size=20, d_model=24, n_layers=1, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40))
    decoder.embedding.weight.data = 3 * torch.eye(20, 24)
    fill(decoder.lm_head.matrix, 2 * torch.ones(20, 24))
    dots = pairwise_dots(decoder).set_index("kind")
    assert len(dots.loc["input_embedding"]) == 190
    assert (dots.loc["input_embedding"] == 0).all(axis=None)
    assert dots.loc["output_embedding", "value"].to_numpy() == pytest.approx(96)
    assert dots.loc["output_embedding", "cosine"].to_numpy() == pytest.approx(1)


def test_a_sample_of_pairs_is_always_the_same_and_never_of_a_vector_with_itself():
    decoder = Nemotron(DIMS)
    decoder.embedding.weight.data = torch.eye(53)[:, :24] * 2  # a vector with itself would give 4
    first, second = pairwise_dots(decoder, most=1000), pairwise_dots(decoder, most=1000)
    assert first.equals(second)
    assert first.groupby("kind").size().to_dict() == {"input_embedding": 1000, "output_embedding": 1000}
    assert (first[first["kind"] == "input_embedding"]["value"] == 0).all()


def test_a_tied_matrix_counts_as_both_embeddings():
    decoder = NGPT(DIMS, lm_head=lambda dims, embedding: ScaledLogits(dims, embedding, tied=True))
    norms = matrix_norms(decoder).set_index("kind")["norm"]
    assert norms.loc["input_embedding"].tolist() == norms.loc["output_embedding"].tolist()
