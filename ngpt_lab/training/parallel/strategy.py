"""The strategies fsdp2, tp and fsdp2+tp: one model over several devices, by torch's DTensor."""

import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Shard

from ngpt_lab.errors import InputError
from ngpt_lab.machine import keep_compiled
from ngpt_lab.models import Decoder
from ngpt_lab.nn.linear import WriteLinear
from ngpt_lab.training.checkpoint_form import check_optimizer_states
from ngpt_lab.training.checkpoints import is_folder, outline
from ngpt_lab.training.parallel import birth, folders
from ngpt_lab.training.parallel.pieces import as_piece, whole
from ngpt_lab.training.parallel.tensor import check, split
from ngpt_lab.training.parallel.together import first_alone

if TYPE_CHECKING:
    from ngpt_lab.training.module import BackboneModule

# A block hands the first one's values on, which are a view; nothing is done to them in place.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class Sharded(ModelParallelStrategy):
    """Parameters, gradients and the optimizer's state in pieces, one on each device.

    Devices in a tensor-parallel group compute parts of each block and see the same windows; the groups see different windows,
    and with `fully_sharded` the devices of the same place in all groups share what that place has (FSDP2).

    Args:
        tensor_parallel_size: how many devices compute a block together; auto for those of a machine.
        fully_sharded: whether data-parallel devices have pieces; without it there is one tensor-parallel group.
        timeout_minutes: how long devices wait for each other.
    """

    def __init__(
        self, tensor_parallel_size: int | Literal["auto"] = 1, fully_sharded: bool = True, timeout_minutes: float = 30.0
    ) -> None:
        super().__init__(1, tensor_parallel_size, False, timeout=timedelta(minutes=timeout_minutes))
        self.fully_sharded = fully_sharded
        self._folder: Path | None = None

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """At the same moment as without pieces: the weights are there once the model is configured."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By `load_optimizer_state_dict`."""
        return True

    def group(self, backbone: Decoder) -> None:
        """Settle how the devices are grouped; before other processes are started.

        Raises:
            InputError: they cannot be, or the model cannot be split over so many.
        """
        devices = self.num_processes * self.num_nodes
        together = self.num_processes if self.fully_sharded else devices
        size = together if self._tensor_parallel_size == "auto" else self._tensor_parallel_size
        if size < 1 or devices % size or (not self.fully_sharded and devices != size):
            raise InputError(
                f"tensor_parallel_size is {size}, which does not group {devices} devices: set trainer.devices to "
                f"{'a multiple of it' if self.fully_sharded else 'it'}"
            )
        check(backbone, size)
        self._tensor_parallel_size, self._data_parallel_size = size, devices // size

    def setup_environment(self) -> None:
        """See `Strategy`."""
        self.group(self.lightning_module.backbone)  # type: ignore[union-attr, arg-type]
        super().setup_environment()

    @property
    def sharded_checkpoints(self) -> bool:
        """Whether a checkpoint is a folder to which every process writes its pieces."""
        return self._save_distributed_checkpoint

    @sharded_checkpoints.setter
    def sharded_checkpoints(self, sharded: bool) -> None:
        self._save_distributed_checkpoint = sharded

    def distribute(self, module: "BackboneModule") -> None:
        """Give every process its pieces of a module, made with the numbers that one process would have made it with.

        Raises:
            InputError: it cannot be split so.
        """
        if self.device_mesh["tensor_parallel"].size() > 1:
            split(module.backbone, module, self.device_mesh["tensor_parallel"])
        if self.fully_sharded:
            shard(module, self.device_mesh["data_parallel"])
        if module.unborn is not None:
            birth.allocate(module, self.root_device)
            birth.bear(module, module.backbone, module.unborn)
            module.unborn = None
        if module.compile_backbone:
            keep_compiled()
            for block in module.backbone.blocks:
                # Not the block itself: gathering its parameters, which is done around this, cannot be compiled.
                block.forward = torch.compile(block.forward, fullgraph=True)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights, in pieces."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state, in pieces."""
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, a folder of pieces or one file that any number of processes can load; every process calls it.

        Raises:
            InputError: it cannot be written; on every process.
        """
        if self.sharded_checkpoints:
            folders.write_folder(checkpoint, Path(filepath))
            return
        gathered = mapped(checkpoint, lambda tensor: kept(whole(tensor), self.is_global_zero))
        first_alone(lambda: self.checkpoint_io.save_checkpoint(gathered, filepath))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What a checkpoint holds, of one file or of a folder, without its tensors' being read."""
        path = Path(checkpoint_path)
        self._folder = path if is_folder(path) else None
        checkpoint: dict[str, Any] = outline(path) if self._folder is None else folders.outline_together(path)
        checkpoint.setdefault("pytorch-lightning_version", lightning.__version__)
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Put a checkpoint's weights in place, each process its pieces."""
        ours = self.lightning_module_state_dict()
        if self._folder is not None:
            folders.read_into(self._folder, {f"state_dict/{name}": tensor for name, tensor in ours.items()})
            return
        for name, tensor in checkpoint["state_dict"].items():
            birth.fill(ours[name], tensor)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Put a checkpoint's optimizer states in place, each process its pieces.

        Raises:
            InputError: they are not of these optimizers' parameters.
        """
        states = checkpoint["optimizer_states"]
        check_optimizer_states(states, self.optimizers, str(self._folder or "the checkpoint"))
        for number, (optimizer, state) in enumerate(zip(self.optimizers, states, strict=True)):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            of = {
                at: {name: self._piece(value, parameters[at]) for name, value in values.items()}
                for at, values in state["state"].items()
            }
            if self._folder is not None:
                rooms: dict[str, torch.Tensor] = {}
                folders.apart({"optimizer_states": {number: {"state": of}}}, (), rooms)
                folders.read_into(self._folder, rooms)
            optimizer.load_state_dict({**state, "state": of})

    def _piece(self, value: Any, parameter: nn.Parameter) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.is_meta:
            if value.shape == parameter.shape:
                return torch.empty_like(parameter.detach(), dtype=value.dtype)
            return torch.empty_like(value, device="cpu")
        return as_piece(value, parameter) if value.shape == parameter.shape else value


def shard(module: "BackboneModule", mesh: DeviceMesh) -> None:
    """FSDP2: each block is a group that is gathered for its forward and its backward, and the rest of the module another.

    Where all processes get the same share of it a matrix is cut across its stream vectors, which leaves each whole on one
    process: projection then sends nothing.
    """
    writing = {id(part.weight) for part in module.backbone.modules() if isinstance(part, WriteLinear)}

    def cut(parameter: nn.Parameter) -> Shard | None:
        return Shard(1) if id(parameter) in writing and evenly(parameter, mesh) else None

    for block in module.backbone.blocks:
        fully_shard(block, mesh=mesh, shard_placement_fn=cut)
    fully_shard(module, mesh=mesh, shard_placement_fn=cut)
    for name in STEPS:
        if callable(getattr(module, name, None)):
            register_fsdp_forward_method(module, name)


def evenly(matrix: nn.Parameter, mesh: DeviceMesh) -> bool:
    """Whether the columns of a matrix can be shared evenly, also those of a process's piece, which FSDP2 needs."""
    others = getattr(matrix, "device_mesh", None)
    return matrix.shape[1] % (mesh.size() * (1 if others is None else others.size())) == 0


def mapped(tree: Any, function: Any) -> Any:
    """A tree of mappings and lists with a function's values in the place of its tensors."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: mapped(value, function) for key, value in tree.items()}
    return [mapped(value, function) for value in tree] if isinstance(tree, list) else tree


def kept(tensor: torch.Tensor, here: bool) -> torch.Tensor | None:
    """A tensor on the CPU where it is to be kept."""
    return tensor.cpu() if here else None
