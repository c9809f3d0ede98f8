"""How many processes a config trains on, and what each of them holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ngpt_lab.errors import InputError
from ngpt_lab.machine import devices_named
from ngpt_lab.models import Decoder
from ngpt_lab.training.parallel.launch import NAMED
from ngpt_lab.training.parallel.strategy import Sharded
from ngpt_lab.training.parallel.tensor import check


@dataclass(frozen=True)
class Layout:
    """How a run is divided.

    Args:
        data: groups of processes that share a batch's windows.
        tensor: processes that share each block's heads and hidden channels.
        sharded: whether groups share the weights, their gradients and the optimizer's state too.
        nodes: machines.
    """

    data: int
    tensor: int
    sharded: bool
    nodes: int

    @property
    def strategy(self) -> str:
        """The strategy's name."""
        along = "fsdp2" if self.sharded else "ddp" if self.data > 1 else ""
        return "+".join(name for name in (along, "tp" if self.tensor > 1 else "") if name) or "single"

    @property
    def processes(self) -> int:
        """All of them."""
        return self.data * self.tensor

    @property
    def shards(self) -> int:
        """Groups that share each weight, its gradient and its optimizer state."""
        return self.data if self.sharded else 1


def layout(settings: Mapping[str, Any]) -> Layout:
    """The layout that a config's trainer.strategy, devices and num_nodes mean.

    Raises:
        InputError: a strategy that is not planned, devices that are not a number, or that cannot be grouped so.
    """
    devices, nodes = _count(settings["trainer.devices"]), int(settings["trainer.num_nodes"])
    if nodes < 1:
        raise InputError(f"trainer.num_nodes is {nodes}: it must be at least 1")
    world, chosen = devices * nodes, _sharded(settings)
    if chosen is None:
        return Layout(world, 1, False, nodes)
    asked, sharded = chosen.get("tensor_parallel_size", 1), chosen.get("fully_sharded", True)
    tensor = (devices if sharded else world) if asked == "auto" else int(asked)
    if tensor < 1 or world % tensor or not (sharded or world == tensor):
        raise InputError(
            f"tensor_parallel_size is {tensor}, which does not group {world} devices: set trainer.devices to "
            f"{'a multiple of it' if sharded else 'it'}"
        )
    return Layout(world // tensor, tensor, sharded, nodes)


def local_sizes(decoder: Decoder, processes: int) -> dict[str, int]:
    """The sizes of what the first of some tensor-parallel processes has of each block.

    Raises:
        InputError: they cannot be split.
    """
    check(decoder, processes)
    return {name: -(-getattr(decoder.dims, name) // processes) for name in ("n_heads", "n_kv_heads", "d_ff")}


def _count(devices: Any) -> int:
    if (count := devices_named(devices)) is None:
        raise InputError(f"trainer.devices is {devices}: a plan needs their number, as --trainer.devices=8")
    return count


def _sharded(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The settings of a `Sharded` strategy; None for those that give every process the whole model.

    Raises:
        InputError: another strategy.
    """
    name, path = settings.get("trainer.strategy"), str(settings.get("trainer.strategy.class_path", ""))
    if name in ("auto", "ddp") or path.endswith("DDPStrategy"):
        return None
    if name in NAMED:
        return NAMED[name]
    if path.endswith(f".{Sharded.__name__}"):
        keys = ("tensor_parallel_size", "fully_sharded")
        given = {key: settings.get(f"trainer.strategy.init_args.{key}") for key in keys}
        return {key: value for key, value in given.items() if value is not None}
    raise InputError(f"trainer.strategy is {name or path}, which is not planned: use auto, ddp, fsdp2, tp or fsdp2+tp")
