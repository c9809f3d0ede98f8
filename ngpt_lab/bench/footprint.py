"""What an arm's step holds in memory."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ngpt_lab.bench.arm import Arm
from ngpt_lab.bench.profiling import peak_growth


def saved_for_backward(arm: Arm) -> int:
    """Bytes that the forward pass of a micro-batch keeps for its backward pass, each storage once.

    The weights themselves and the batch, which are there anyway, do not count; copies of them do.
    """
    batch = arm.batches[0]
    there = [*arm.module.parameters(), *arm.module.buffers(), *(one for one in batch if one is not None)]
    known = {tensor.untyped_storage().data_ptr() for tensor in there}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = arm.loss(batch)
    del loss  # frees what was kept, which until here keeps storages from taking each other's addresses
    return sum(kept.values())


def peak_bytes(arm: Arm) -> int:
    """The most memory that an arm's step holds at once as torch allocates it, weights and optimizer state included."""
    arm.optimizer.zero_grad()
    own = [*arm.module.parameters(), *arm.module.buffers(), *optimizer_state(arm.optimizer)]
    return peak_growth(arm.device, arm.step) + sum(tensor.nbytes for tensor in own)


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors that an optimizer keeps between steps."""
    return [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
