"""What a decoder does to a text, where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ngpt_lab.analysis.stream import (
    attention_entropy,
    lerp_slerp_gap,
    logit_temperature,
    moves,
    row_entropies,
    stream_path,
    turned,
)
from ngpt_lab.models import GPT, NGPT, Decoder, Dims, Nemotron
from ngpt_lab.models.ngpt import SphereResidual
from ngpt_lab.nn.attend_sdpa import SDPA
from ngpt_lab.nn.scale import signed
from ngpt_lab.sphere import lerp, slerp, unit

DIMS = Dims(vocab_size=53, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)
PARTS = [("attention", 0), ("mlp", 0), ("attention", 1), ("mlp", 1)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(53, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[NGPT, Nemotron, GPT])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return request.param(DIMS)


def with_alpha(alpha: float, path: Callable[..., Tensor] = lerp) -> Decoder:
    def residual(dims: Dims, layer: int) -> SphereResidual:
        return SphereResidual(dims, layer, path=path, sign=signed, init=alpha or 1.0)

    decoder = NGPT(DIMS, attention_residual=residual, mlp_residual=residual)
    if alpha == 0:
        for block in decoder.blocks:
            torch.nn.init.zeros_(block.attention_residual.alpha.stored)
            torch.nn.init.zeros_(block.mlp_residual.alpha.stored)
    return decoder


def test_the_angle_keeps_its_digits_at_both_ends():
    x = torch.eye(3, dtype=torch.float64)
    for degrees in (1e-7, 1e-3, 60.0, 90.0, 180 - 1e-7, 180.0):
        at = math.radians(degrees)
        assert float(turned(5 * x[0], 2 * (math.cos(at) * x[0] + math.sin(at) * x[1]))) == pytest.approx(degrees, rel=1e-8)


def test_the_moves_are_those_of_the_forward_pass(decoder: Decoder, tokens: Tensor):
    found, stream = moves(decoder, tokens), decoder.stream(tokens)
    assert [(move.sublayer, move.layer) for move in found] == PARTS
    assert torch.equal(found[0].before, stream[0])
    assert torch.equal(found[1].after, stream[1])
    assert torch.equal(found[3].after, stream[2])
    assert torch.equal(found[1].before, found[0].after)


def test_alpha_zero_moves_nothing_and_alpha_one_moves_all_the_way(tokens: Tensor):
    still = stream_path(with_alpha(0.0), tokens)
    assert still["angle"].to_numpy() == pytest.approx(0, abs=1e-5)
    assert still["share"].to_numpy() == pytest.approx(0, abs=1e-6)
    decoder = with_alpha(1.0)
    whole = [float(turned(move.before, unit(move.output)).mean()) for move in moves(decoder, tokens)]
    path = stream_path(decoder, tokens)
    assert path["angle"].to_list() == pytest.approx(whole, abs=1e-4)
    assert path["angle"].min() > 30
    assert path[["norm_before", "norm_after"]].to_numpy() == pytest.approx(1, abs=1e-6)


def test_a_known_step_has_its_known_angle_length_and_share(tokens: Tensor):
    decoder = GPT(DIMS)
    decoder.embedding.weight.data = torch.zeros(53, 24)
    decoder.embedding.weight.data[:, 0] = 4.0
    for block in decoder.blocks:
        block.attention.out.weight.data.zero_()
        block.mlp.down.bias = torch.nn.Parameter(torch.eye(24)[1] * 3.0)  # each MLP adds 3 along another axis
        block.mlp.down.weight.data.zero_()
    path = stream_path(decoder, tokens).set_index(["sublayer", "layer"])
    assert path.loc["attention"].to_numpy() == pytest.approx(np.array([[0, 4, 4, 0], [0, 5, 5, 0]]))
    first, second = math.degrees(math.atan2(3, 4)), math.degrees(math.atan2(6, 4) - math.atan2(3, 4))
    assert path.loc["mlp"].to_numpy() == pytest.approx(np.array([[first, 4, 5, 3 / 4], [second, 5, 52**0.5, 3 / 5]]))


def test_zero_queries_attend_evenly(tokens: Tensor, decoder: Decoder):
    for block in decoder.blocks:
        block.attention.q.weight.data.zero_()
    entropy = attention_entropy(decoder, tokens)
    assert list(zip(entropy["layer"], entropy["head"], strict=True)) == [(layer, head) for layer in (0, 1) for head in range(4)]
    expected = np.log(np.arange(1, 13)).mean()
    assert entropy[["entropy", "uniform"]].to_numpy() == pytest.approx(expected, abs=1e-12)


def test_sharp_attention_has_no_entropy_and_no_row_has_more_than_an_even_one():
    q, k = torch.randn(3, 4, 12, 8), torch.randn(3, 2, 12, 8)
    bound = torch.arange(1, 13).double().log() + 1e-12
    for scale in (0.0, 0.1, 1.0, 30.0):
        rows = row_entropies(q, k, scale)
        assert rows.shape == (3, 4, 12)
        assert ((rows >= 0) & (rows <= bound)).all()
    assert float(row_entropies(q, k, 1e6).max()) < 1e-6


def test_entropies_are_those_of_the_weights_that_attention_uses(
    tokens: Tensor, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
        # Attending to the identity gives the weights themselves.
        positions = torch.eye(q.shape[-2], dtype=torch.float64).expand(*k.shape[:2], -1, -1)
        seen.append(SDPA.compute(q.double(), k.double(), positions, mask, scale, dropout))
        return SDPA.compute(q, k, v, mask, scale, dropout)

    usual = decoder.attend
    monkeypatch.setattr("ngpt_lab.analysis.stream.SDPA", replace(SDPA, compute=attend))
    entropy = attention_entropy(decoder, tokens)
    assert decoder.attend is usual
    weights = torch.stack(seen).detach()
    expected = -(weights * weights.clamp_min(1e-300).log()).sum(dim=-1).mean(dim=(1, 3))
    assert entropy["entropy"].to_numpy() == pytest.approx(expected.flatten().numpy(), abs=1e-9)


def test_logits_of_known_spread_have_their_entropy_and_scale(tokens: Tensor):
    decoder = NGPT(DIMS)
    torch.nn.init.zeros_(decoder.lm_head.s_z.stored)
    flat = logit_temperature(decoder, tokens).set_index("quantity")["value"]
    assert flat.to_dict() == {"logit_std": 0, "prediction_entropy": pytest.approx(math.log(53)), "mean_s_z": 0}
    torch.nn.init.constant_(decoder.lm_head.s_z.stored, 5 / decoder.lm_head.s_z.gain)
    scaled = logit_temperature(decoder, tokens).set_index("quantity")["value"]
    logits = decoder(tokens).detach().double()
    assert scaled["logit_std"] == pytest.approx(float(logits.std(dim=-1, correction=0).mean()))
    assert scaled["mean_s_z"] == pytest.approx(5)
    assert 0 < scaled["prediction_entropy"] < math.log(53)
    assert logit_temperature(Nemotron(DIMS), tokens)["quantity"].to_list() == ["logit_std", "prediction_entropy"]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_lerp_and_slerp_agree_at_none_half_and_all_of_the_way(alpha: float, tokens: Tensor):
    gap = lerp_slerp_gap(with_alpha(alpha), tokens)
    assert list(zip(gap["sublayer"], gap["layer"], strict=True)) == PARTS
    assert gap["alpha"].to_numpy() == pytest.approx(alpha)
    assert gap["angle_lerp"].to_numpy() == pytest.approx(gap["angle_slerp"].to_numpy(), abs=1e-5)
    assert gap["angle_slerp"].to_numpy() == pytest.approx((alpha * gap["angle_between"]).to_numpy(), abs=1e-4)


def test_lerp_lags_behind_slerp_for_small_alpha_and_slerp_goes_its_share(tokens: Tensor):
    gap = lerp_slerp_gap(with_alpha(0.2), tokens)
    assert (gap["angle_lerp"] < gap["angle_slerp"]).all()
    assert gap["angle_slerp"].to_numpy() == pytest.approx((0.2 * gap["angle_between"]).to_numpy(), rel=1e-4)


@pytest.mark.parametrize(("path", "column"), [(lerp, "angle_lerp"), (slerp, "angle_slerp")])
def test_what_the_decoder_itself_does_is_one_of_the_two(path: Callable[..., Tensor], column: str, tokens: Tensor):
    decoder = with_alpha(0.2, path)
    moved, gap = stream_path(decoder, tokens)["angle"], lerp_slerp_gap(decoder, tokens)[column]
    assert moved.to_numpy() == pytest.approx(gap.to_numpy(), rel=1e-4)


def test_a_decoder_without_eigen_learning_rates_has_no_gap(tokens: Tensor):
    assert lerp_slerp_gap(GPT(DIMS), tokens).empty
