"""Tensors that several processes share, a piece each: whose piece is which, and sums and lengths over all pieces."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate
from torch.nn import functional as F

from ngpt_lab.nn.shards import local
from ngpt_lab.sphere import length, widen

Groups = tuple[dist.ProcessGroup, ...]


def axes(tensor: DTensor) -> Iterator[tuple[int, int]]:
    """The axes of the mesh that a tensor is split over, each with the dimension it splits, from the first cut to the last.

    FSDP2 cuts what tensor parallelism has cut, so the last axis, of tensor parallelism, comes first.
    """
    for axis in reversed(range(tensor.device_mesh.ndim)):
        dim = getattr(tensor.placements[axis], "dim", None)
        if dim is not None:
            yield axis, dim


def piece_of(whole: Tensor, like: DTensor, but: int | None = None) -> Tensor:
    """This process's piece, a view, of a tensor that is split as `like` is; not along dimension `but`. Pieces can be empty."""
    piece = whole
    for axis, dim in axes(like):
        if dim != but:
            size, count, at = piece.shape[dim], like.device_mesh.size(axis), like.device_mesh.get_local_rank(axis)
            each = -(-size // count)
            first = min(at * each, size)
            piece = piece.narrow(dim, first, min(each, size - first))
    return piece


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process has a piece; every process calls it. Any other tensor as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    cuts = list(axes(tensor))
    # How far the tensor reached, along the dimension that is cut, before each cut.
    sizes, shape = [], list(tensor.shape)
    for axis, dim in cuts:
        sizes.append(shape[dim])
        count, at = tensor.device_mesh.size(axis), tensor.device_mesh.get_local_rank(axis)
        each = -(-shape[dim] // count)
        shape[dim] = max(min(each, shape[dim] - at * each), 0)
    piece = local(tensor.detach())
    for (axis, dim), size in zip(reversed(cuts), reversed(sizes), strict=True):
        piece = joined(piece, dim, size, tensor.device_mesh.get_group(axis))
    return piece


def joined(piece: Tensor, dim: int, size: int, group: dist.ProcessGroup) -> Tensor:
    """The pieces of all processes of a group along a dimension, where together they are `size` long."""
    count = dist.get_world_size(group)
    each = -(-size // count)
    first = piece.movedim(dim, 0)
    padded = F.pad(first.flatten(1) if first.dim() > 1 else first[:, None], (0, 0, 0, each - len(first))).contiguous()
    gathered = [torch.empty_like(padded) for _ in range(count)]
    dist.all_gather(gathered, padded, group=group)
    return torch.cat(gathered)[:size].view(size, *first.shape[1:]).movedim(0, dim)


def as_piece(tensor: Tensor, like: Tensor, but: int | None = None) -> Tensor:
    """A whole tensor as a DTensor that is split as `like` is, not along dimension `but`, where `like` is one."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    piece = piece_of(tensor, like, but).to(like.device).clone(memory_format=torch.contiguous_format)
    return assembled(piece, like, but, tensor.shape)


def assembled(piece: Tensor, like: Tensor, but: int | None = None, shape: torch.Size | None = None) -> Tensor:
    """Pieces, split as `like` is, as one DTensor; where `like` is none, the piece itself, which is whole.

    Args:
        piece: this process's.
        like: what is split in the same way.
        but: a dimension along which each process has all, which is then of size one.
        shape: of the whole; by default that of `like`, less dimension `but`.
    """
    if not isinstance(like, DTensor):
        return piece
    if shape is None:
        shape = torch.Size(1 if dim == but else size for dim, size in enumerate(like.shape))
    placements = [Replicate() if getattr(p, "dim", but) == but else p for p in like.placements]
    stride = tuple(prod(shape[at + 1 :]) for at in range(len(shape)))
    return DTensor.from_local(piece, like.device_mesh, placements, run_check=False, shape=shape, stride=stride)


def groups(tensor: Tensor, dim: int | None = None) -> Groups:
    """The groups of processes that a tensor is split over; with `dim` those that it is split over along it."""
    if not isinstance(tensor, DTensor):
        return ()
    return tuple(tensor.device_mesh.get_group(axis) for axis, cut in axes(tensor) if dim is None or cut == dim)


def combined(values: Sequence[Tensor], over: Sequence[Groups], how: Any = dist.ReduceOp.SUM) -> list[Tensor]:
    """Values of this process with those of the others of their groups, by one collective a group."""
    result = list(values)
    for group in dict.fromkeys(group for each in over for group in each):
        members = [at for at, each in enumerate(over) if group in each]
        flat = torch.cat([result[at].flatten() for at in members])
        dist.all_reduce(flat, how, group)
        ends = torch.tensor([0, *(result[at].numel() for at in members)]).cumsum(0).tolist()
        for at, (begin, end) in zip(members, pairwise(ends), strict=True):
            result[at] = flat[begin:end].view_as(result[at])
    return result


def lengths(matrices: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """The L2 norms along a dimension of each matrix, kept as a dimension of size one, of the vectors this process has part of.

    Nothing is sent where vectors are not cut. The norms are in float32 or wider, and clamped as in `ngpt_lab.sphere.length`.
    """
    norms = [length(widen(local(matrix.detach())), dim) for matrix, dim in matrices]
    over = [groups(matrix, dim) for matrix, dim in matrices]
    cut = [at for at, each in enumerate(over) if each]
    squares = combined([norms[at].square() for at in cut], [over[at] for at in cut])
    for at, square in zip(cut, squares, strict=True):
        norms[at] = square.sqrt()
    return norms


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all entries of plain tensors together, in float32 or wider whatever theirs is."""
    dtype = reduce(torch.promote_types, {tensor.dtype for tensor in tensors}, torch.float32)
    each = torch._foreach_norm(list(tensors), 2, dtype=dtype)
    return torch.linalg.vector_norm(torch.stack([norm.to(each[0].device) for norm in each]))


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm, as of `norm`, of all entries of tensors together, each counted once however many processes hold it."""
    by_groups: dict[Groups, list[Tensor]] = {}
    for tensor in tensors:
        by_groups.setdefault(groups(tensor), []).append(local(tensor))
    norms = [norm(each) for each in by_groups.values()]
    if not any(by_groups):
        return norms[0] if norms else torch.tensor(0.0)
    return torch.stack(combined([norm.square() for norm in norms], list(by_groups))).sum().sqrt()
