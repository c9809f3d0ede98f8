"""What the matrices of a decoder look like as the forward pass uses them: norms, spectra, angles between embeddings.

Everything is computed in float64. Ranks run from 0, the largest value, to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ngpt_lab.models import Decoder
from ngpt_lab.nn.linear import StreamMatrix
from ngpt_lab.sphere import unit

# Where a matrix stands in the decoder or in its block -> what it is; a fused one is several, one below the other.
PLACES = {
    "embedding": ("input_embedding",),
    "lm_head.matrix": ("output_embedding",),
    "attention.q": ("query",),
    "attention.k": ("key",),
    "attention.v": ("value",),
    "attention.out": ("attention_output",),
    "mlp.up": ("mlp_up",),
    "mlp.gate": ("mlp_gate",),
    "mlp.up_gate": ("mlp_up", "mlp_gate"),
    "mlp.down": ("mlp_down",),
}
PER_HEAD = frozenset({"query", "key", "value"})
EMBEDDINGS = frozenset({"input_embedding", "output_embedding"})
NO_LAYER = WHOLE = -1


@dataclass(frozen=True)
class Matrix:
    """One matrix of a decoder: `vectors` (n, C) float64, each as wide as the stream, read from it or written to it."""

    kind: str
    layer: int
    vectors: Tensor


def place(name: str) -> tuple[tuple[str, ...], int]:
    """The kinds and the layer of the matrix called `name`; one that stands nowhere known is of a kind of its own."""
    layer, within = NO_LAYER, name
    if name.startswith("blocks."):
        _, number, within = name.split(".", 2)
        layer = int(number)
    return PLACES.get(within, (within.replace(".", "_"),)), layer


@torch.no_grad()
def matrices(decoder: Decoder) -> Iterator[Matrix]:
    """Every matrix that faces the stream, as used; a tied one comes as both of its embeddings."""
    for name, part in decoder.named_modules():
        if isinstance(part, StreamMatrix):
            kinds, layer = place(name)
            vectors = part.used.detach().cpu().double().movedim(part.norm_dim, -1)
            for kind, own in zip(kinds, vectors.chunk(len(kinds)), strict=True):
                yield Matrix(kind, layer, own)


def matrix_norms(decoder: Decoder) -> pd.DataFrame:
    """The length of every vector of every matrix (paper Figures 4, 11 and 12): kind, layer, rank, norm."""
    frames = []
    for matrix in matrices(decoder):
        norms = torch.linalg.vector_norm(matrix.vectors, dim=-1).sort(descending=True).values
        frames.append(_frame(matrix, rank=_ranks(len(norms)), norm=norms.numpy()))
    return pd.concat(frames, ignore_index=True)


def singular_values(decoder: Decoder) -> pd.DataFrame:
    """The singular values of each head's query, key and value and of every other matrix: kind, layer, head, rank, value."""
    frames = []
    for matrix in matrices(decoder):
        for head, values in _spectra(decoder, matrix):
            frames.append(_frame(matrix, head=head, rank=_ranks(len(values)), value=values.numpy()))
    return pd.concat(frames, ignore_index=True)


def condition_numbers(decoder: Decoder, renormalized: bool = False) -> pd.DataFrame:
    """Largest over smallest singular value (paper Figures 5 and 10): kind, layer, head, condition; infinite where it is.

    Args:
        decoder: whose matrices are looked at.
        renormalized: bring every vector to unit length first.
    """
    made: Callable[[Tensor], Tensor] = unit if renormalized else _as_it_is
    rows = [
        (matrix.kind, matrix.layer, head, float(values[0] / values[-1]))
        for matrix in matrices(decoder)
        for head, values in _spectra(decoder, matrix, made)
    ]
    return pd.DataFrame(rows, columns=["kind", "layer", "head", "condition"])


def embedding_eigenvalues(decoder: Decoder) -> pd.DataFrame:
    """Eigenvalues of the covariance of the embedding vectors over their median (paper Figure 4): kind, rank, value.

    Of V vectors no more than V - 1 eigenvalues can differ from zero; those that cannot are left out.
    """
    frames = []
    for matrix in embeddings(decoder):
        count, width = matrix.vectors.shape
        values = torch.linalg.svdvals(matrix.vectors - matrix.vectors.mean(dim=0)).square().numpy()[: min(width, count - 1)]
        value = values / np.median(values)
        frames.append(pd.DataFrame({"kind": matrix.kind, "rank": _ranks(len(value)), "value": value}))
    return pd.concat(frames, ignore_index=True)


def pairwise_dots(decoder: Decoder, most: int = 100_000) -> pd.DataFrame:
    """Dot products, and cosines, of pairs of different embedding vectors (paper Figure 4): kind, value, cosine.

    Args:
        decoder: whose embeddings are looked at.
        most: above so many pairs, so many are drawn, always the same ones.
    """
    frames = []
    for matrix in embeddings(decoder):
        first, second = _pairs(len(matrix.vectors), most)
        a, b = matrix.vectors[first], matrix.vectors[second]
        value, cosine = ((x * y).sum(dim=-1).numpy() for x, y in ((a, b), (unit(a), unit(b))))
        frames.append(pd.DataFrame({"kind": matrix.kind, "value": value, "cosine": cosine}))
    return pd.concat(frames, ignore_index=True)


def embeddings(decoder: Decoder) -> Iterator[Matrix]:
    """The input and the output embedding."""
    return (matrix for matrix in matrices(decoder) if matrix.kind in EMBEDDINGS)


def _as_it_is(vectors: Tensor) -> Tensor:
    return vectors


def _spectra(decoder: Decoder, matrix: Matrix, made: Callable[[Tensor], Tensor] = _as_it_is) -> Iterator[tuple[int, Tensor]]:
    """Head (or WHOLE) and singular values, largest first."""
    vectors = made(matrix.vectors)
    if matrix.kind not in PER_HEAD:
        yield WHOLE, torch.linalg.svdvals(vectors)
        return
    yield from enumerate(torch.linalg.svdvals(vectors.unflatten(0, (-1, decoder.dims.d_head))))


def _pairs(count: int, most: int) -> tuple[Tensor, Tensor]:
    if count * (count - 1) // 2 <= most:
        first, second = torch.triu_indices(count, count, offset=1)
        return first, second
    draw = np.random.default_rng(0)
    first, away = draw.integers(count, size=most), draw.integers(1, count, size=most)
    return torch.from_numpy(first), torch.from_numpy((first + away) % count)


def _ranks(count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.linspace(0, 1, count)


def _frame(matrix: Matrix, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"kind": matrix.kind, "layer": matrix.layer, **columns})
