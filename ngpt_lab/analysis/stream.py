"""What a decoder does to a text: the path of its residual stream, its attention, its logits.

`tokens` are ids (B, T). Angles are in degrees, entropies in nats; everything after the forward pass is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from ngpt_lab.models import Decoder
from ngpt_lab.models.decoder import Block
from ngpt_lab.models.ngpt import SphereResidual
from ngpt_lab.nn.attend_function import AttentionChoice
from ngpt_lab.nn.attend_sdpa import SDPA
from ngpt_lab.nn.slots import Residual
from ngpt_lab.sphere import lerp, slerp, unit
from ngpt_lab.training.telemetry import named_scales


@dataclass(frozen=True)
class Move:
    """What one sublayer does to the stream, all (B, T, C): the state before, the sublayer's output, the state after."""

    layer: int
    sublayer: str
    residual: Residual
    before: Tensor
    output: Tensor
    after: Tensor


@torch.no_grad()
def moves(decoder: Decoder, tokens: Tensor) -> list[Move]:
    """Every sublayer's move, in order: attention and MLP of the first block, of the second, ..."""
    outputs: list[Tensor] = []
    hooks = []
    blocks = [block for block in decoder.blocks if isinstance(block, Block)]
    for block in blocks:
        hooks.append(block.attention.register_forward_hook(lambda _part, _input, pair: outputs.append(pair[0])))
        hooks.append(block.mlp.register_forward_hook(lambda _part, _input, y: outputs.append(y)))
    try:
        stream = decoder.stream(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    found, output = [], iter(outputs)
    for layer, block in enumerate(blocks):
        x = stream[layer]
        for sublayer, residual in (("attention", block.attention_residual), ("mlp", block.mlp_residual)):
            y = next(output)
            before, x = x, residual.write(x, y)
            found.append(Move(layer, sublayer, residual, before, y, x))
    return found


def turned(a: Tensor, b: Tensor) -> Tensor:
    """The angle between vectors (..., C), in degrees (...,): by chord and sum, which loses no digits at either end."""
    a, b = unit(a.cpu().double()), unit(b.cpu().double())
    chord, total = (torch.linalg.vector_norm(v, dim=-1) for v in (a - b, a + b))
    return torch.rad2deg(2 * torch.atan2(chord, total))


def stream_path(decoder: Decoder, tokens: Tensor) -> pd.DataFrame:
    """How far each sublayer moves the state: layer, sublayer, angle, norm_before, norm_after, share; means over tokens.

    `share` is the length of the move over the length of the state before it.
    """
    rows = []
    for move in moves(decoder, tokens):
        before, after = move.before.cpu().double(), move.after.cpu().double()
        norm_before, norm_after, moved = (torch.linalg.vector_norm(v, dim=-1) for v in (before, after, after - before))
        measures = turned(before, after), norm_before, norm_after, moved / norm_before
        rows.append((move.layer, move.sublayer, *(float(m.mean()) for m in measures)))
    return pd.DataFrame(rows, columns=["layer", "sublayer", "angle", "norm_before", "norm_after", "share"])


@torch.no_grad()
def lerp_slerp_gap(decoder: Decoder, tokens: Tensor) -> pd.DataFrame:
    """How far LERP and SLERP move each state with the learned alpha: layer, sublayer, alpha, angle_lerp, angle_slerp.

    Both start at the states and sublayer outputs of one forward pass, `angle_between` apart; `alpha` is the mean used one.
    Decoders without eigen learning rates give no rows.
    """
    rows = []
    for move in moves(decoder, tokens):
        if isinstance(move.residual, SphereResidual):
            x, h = move.before.double(), unit(move.output.double(), eps=move.residual.eps)
            alpha = move.residual.sign(move.residual.alpha().double())
            angles = [float(turned(x, to).mean()) for to in (lerp(x, h, alpha), slerp(x, h, alpha), h)]
            rows.append((move.layer, move.sublayer, float(alpha.mean()), *angles))
    return pd.DataFrame(rows, columns=["layer", "sublayer", "alpha", "angle_lerp", "angle_slerp", "angle_between"])


@torch.no_grad()
def attention_entropy(decoder: Decoder, tokens: Tensor) -> pd.DataFrame:
    """The mean entropy of each head's attention: layer, head, entropy, uniform (what even attention would have)."""
    entropies: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
        entropies.append(row_entropies(q, k, scale))
        return SDPA.compute(q, k, v, mask, scale, dropout)

    with _attending(decoder, replace(SDPA, compute=attend)):
        decoder.stream(tokens)
    uniform = float(torch.arange(1, tokens.shape[1] + 1).double().log().mean())
    rows = [
        (layer, head, float(entropy), uniform)
        for layer, of_layer in enumerate(entropies)
        for head, entropy in enumerate(of_layer.mean(dim=(0, 2)))
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "entropy", "uniform"])


def row_entropies(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """The entropy of every causal row of attention, (B, H, T), from queries (B, H, T, D) and keys (B, H_kv, T, D)."""
    seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    entropies = []
    # One text at a time: all scores at once, in float64, may be more than there is memory.
    for queries, keys in zip(q.cpu().double(), k.cpu().double(), strict=True):
        keys = keys.repeat_interleave(q.shape[1] // k.shape[1], dim=0)
        weights = (queries @ keys.mT * scale).masked_fill(~seen, float("-inf")).softmax(dim=-1)
        entropies.append(torch.special.entr(weights).sum(dim=-1))
    return torch.stack(entropies)


@torch.no_grad()
def logit_temperature(decoder: Decoder, tokens: Tensor) -> pd.DataFrame:
    """How sharp the predictions are: quantity, value.

    `logit_std` is the spread of a position's logits and `prediction_entropy` the entropy of its softmax, means over the
    positions; `mean_s_z` is the mean of the logits' scale, where the head has one.
    """
    logits = decoder(tokens).cpu().double()
    quantities = {
        "logit_std": logits.std(dim=-1, correction=0).mean(),
        "prediction_entropy": torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1).mean(),
    }
    # The scale of the logits is the one that belongs to no layer.
    quantities |= {f"mean_{name}": value.double().mean() for name, value in named_scales(decoder) if "/" not in name}
    return pd.DataFrame([(name, float(value)) for name, value in quantities.items()], columns=["quantity", "value"])


@contextmanager
def _attending(decoder: Decoder, attend: AttentionChoice) -> Iterator[None]:
    usual, decoder.attend = decoder.attend, attend
    try:
        yield
    finally:
        decoder.attend = usual
