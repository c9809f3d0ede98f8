"""Tensor parallelism: each process of a group computes some heads and some hidden channels of every block (arXiv 1909.08053).

Matrices that read from the stream are cut by rows, those that write to it by columns: no vector of a stream matrix is cut. What
stands on the stream itself, alphas, norms, embeddings and the head, every process has whole.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed._functional_collectives import all_reduce, wait_tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.nn.linear import ReadLinear, WriteLinear
from ngpt_lab.nn.product import product
from ngpt_lab.nn.scale import Scale
from ngpt_lab.nn.shards import local
from ngpt_lab.training.parallel.pieces import assembled, piece_of


class _Enter(torch.autograd.Function):
    """The identity, whose gradient is the sum of all processes'."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return added(grad, ctx.group), None


class _Leave(torch.autograd.Function):
    """The sum of all processes', whose gradient is the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return added(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def added(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over a group's processes."""
    # Not in place: torch 2.11 compiles that to wrong gradients.
    return wait_tensor(all_reduce(x.contiguous(), "sum", group))


class SummedLinear(WriteLinear):
    """A `WriteLinear` of which each process has some columns: the products are added up, and the bias to their sum."""

    group: dist.ProcessGroup

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """See `WriteLinear`."""
        weight = self.used
        if scale is not None:
            weight = (weight * scale[:, None]).to(weight.dtype)
        y: Tensor = _Leave.apply(product(x, weight), self.group)
        if self.bias is None:
            return y
        bias = local(self.bias)
        return y + (bias if scale is None else bias * scale).to(y.dtype)


def split(backbone: Decoder, module: nn.Module, mesh: DeviceMesh) -> None:
    """Split `backbone` within `module` over the processes of a mesh of one axis; what is not split becomes a DTensor too.

    Raises:
        InputError: something in it cannot be split over so many processes.
    """
    placements: dict[int, Placement] = {}
    group = mesh.get_group()
    for block in backbone.blocks:
        sublayers: list[Any] = [block.attention, block.mlp]
        for sublayer in sublayers:
            for name, part in sublayer.named_modules():
                placements |= place(part, name, group)
            sublayer.register_forward_pre_hook(lambda _, inputs: (_Enter.apply(inputs[0], group), *inputs[1:]))
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) not in made:
                made[id(parameter)] = shared(parameter, placements.get(id(parameter), Replicate()), mesh)
            part.register_parameter(name, made[id(parameter)])


def place(part: nn.Module, name: str, group: dist.ProcessGroup) -> dict[int, Placement]:
    """How the parameters of a part of a sublayer are split, by their ids; what else it takes to compute with the pieces.

    Raises:
        InputError: a part that is not known to be the same for each head or hidden channel.
    """
    own = list(part.parameters(recurse=False))
    if isinstance(part, ReadLinear):
        return {id(parameter): Shard(0) for parameter in own}
    if isinstance(part, WriteLinear):
        part.__class__ = SummedLinear
        vars(part)["group"] = group
        return {id(part.weight): Shard(1)}
    if isinstance(part, Scale) and part.axis in ("heads", "hidden"):
        if len(part.stored) > 1:
            return {id(part.stored): Shard(0)}
        # Each process knows what its own heads or channels say of the one entry.
        part.register_forward_hook(lambda _, __, used: _Enter.apply(used, group))
        return {}
    if own:
        raise InputError(
            f"{type(part).__name__} ({name}) cannot be split by tensor parallelism: set trainer.strategy to fsdp2 or ddp"
        )
    return {}


def check(backbone: Decoder, processes: int) -> None:
    """Refuse sizes that cannot be split.

    Raises:
        InputError: names the size.
    """
    dims = backbone.dims
    for name, size in (("n_heads", dims.n_heads), ("n_kv_heads", dims.n_kv_heads)):
        if size % processes:
            raise InputError(
                f"dims.{name} is {size}, which tensor parallelism cannot split over {processes} processes: choose a tensor "
                f"parallel size that divides it, or set trainer.strategy to fsdp2"
            )
    if dims.d_ff < processes:
        raise InputError(f"dims.d_ff is {dims.d_ff}, which leaves nothing to some of {processes} processes: use fewer")


def shared(parameter: nn.Parameter, placement: Placement, mesh: DeviceMesh) -> nn.Parameter:
    """A parameter as a DTensor of which this process holds its piece."""
    whole = parameter.detach()
    like = DTensor.from_local(whole, mesh, [Replicate()], run_check=False)
    dim = getattr(placement, "dim", None)
    if dim is None:
        return nn.Parameter(like, parameter.requires_grad)
    cut = DTensor.from_local(whole[:0], mesh, [placement], run_check=False, shape=whole.shape, stride=whole.stride())
    piece = piece_of(whole, cut).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(assembled(piece, cut), parameter.requires_grad)
