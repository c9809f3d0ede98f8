"""The state of every random number generator that a run may draw from, of every process, in tensors and plain values."""

import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from ngpt_lab.errors import InputError


def collect(trainer: Trainer) -> list[dict[str, Any]]:
    """The states of all processes, in their order; every process calls it."""
    mine = state(trainer.strategy.root_device)
    if trainer.world_size == 1:
        return [mine]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, mine)
    return gathered


def put_back(states: Sequence[dict[str, Any]], trainer: Trainer) -> None:
    """Go on with the random numbers where each process left off.

    A checkpoint of another number of processes can be gone on from: the batches are the same whatever the number. What
    dropout draws is not, which is said; a process that the checkpoint has no state of keeps its own.

    Raises:
        InputError: these are no states of random number generators.
    """
    if len(states) != trainer.world_size:
        say(
            f"the checkpoint is of {len(states)} processes and this run has {trainer.world_size}: it sees the same batches, "
            "but dropout draws other numbers than in a run that was never stopped"
        )
    if trainer.global_rank >= len(states):
        return
    try:
        restore(states[trainer.global_rank], trainer.strategy.root_device)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{trainer.ckpt_path} cannot be continued from: its random states are none") from error


def state(device: torch.device) -> dict[str, Any]:
    """This process's state."""
    version, words, gauss = random.getstate()
    kind, keys, at, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(at), int(has_gauss), float(cached)],
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore(states: dict[str, Any], device: torch.device) -> None:
    """Bring this process to a state."""
    torch.set_rng_state(states["torch"].cpu())
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


@rank_zero_only
def say(line: str) -> None:
    """Tell the user something that is no reason to stop."""
    print(f"ngpt-lab: {line}", file=sys.stderr)
