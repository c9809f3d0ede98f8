"""Where the vectors of the stream matrices point, how far they turned, and how far they are from length one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ngpt_lab.nn.linear import as_stored, stream_matrices, weight_error
from ngpt_lab.nn.shards import local
from ngpt_lab.sphere import widen
from ngpt_lab.training.normalize_weights import measured
from ngpt_lab.training.parallel.pieces import assembled, combined, groups, lengths, whole


def directions(decoder: nn.Module) -> dict[str, Tensor]:
    """A copy of every stream matrix with its vectors at length one."""
    return {
        name: assembled(widen(local(matrix.weight.detach())) / norms, matrix.weight, shape=matrix.weight.shape)
        for name, matrix, norms in measured(decoder)
    }


def angles(decoder: nn.Module, before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean angle between the vectors of two directions of every stream matrix, in degrees.

    From the chord, not the cosine: an arc cosine near 1 loses half the digits, and a step's angle is small.
    """
    dims = {name: matrix.norm_dim for name, matrix in stream_matrices(decoder)}
    chords = lengths([(assembled(local(now[name]) - local(before[name]), now[name]), dim) for name, dim in dims.items()])
    turned = [torch.rad2deg(2 * torch.asin((chord / 2).clamp_max(1))) for chord in chords]
    over = [groups(now[name], 1 - dim) for name, dim in dims.items()]
    sums = combined([torch.stack([each.sum(), each.new_tensor(each.numel())]) for each in turned], over)
    return {name: float(total / count) for name, (total, count) in zip(dims, sums, strict=True)}


def error(decoder: nn.Module) -> float:
    """`weight_error`, also of matrices that processes share; every process calls it."""
    named = list(stream_matrices(decoder))
    if not any(groups(matrix.weight) for _, matrix in named):
        return weight_error(decoder)
    used = [
        (matrix.weight.detach() if matrix.used_as is as_stored else matrix.used_as(whole(matrix.weight), matrix.norm_dim))
        for _, matrix in named
    ]
    wide = [assembled(local(weight).double(), weight, shape=weight.shape) for weight in used]
    norms = lengths([(weight, matrix.norm_dim) for weight, (_, matrix) in zip(wide, named, strict=True)])
    worst = torch.stack([(norm - 1).abs().max() if norm.numel() else norm.new_tensor(0.0) for norm in norms]).max()
    everywhere = tuple({group: None for weight in used for group in groups(weight)})
    return float(combined([worst], [everywhere], dist.ReduceOp.MAX)[0])
