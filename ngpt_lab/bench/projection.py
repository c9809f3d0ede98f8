"""What it costs to put all matrices back on the sphere: against the plain loop, and as a share of the step it ends."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from ngpt_lab.bench.arm import Arm, load, shared_device
from ngpt_lab.bench.timing import machine, ratio, time_rounds
from ngpt_lab.errors import InputError
from ngpt_lab.nn.linear import stream_matrices, weight_error

PROJECTION, LOOP, STEP = "projection", "loop", "step"


@torch.no_grad()
def plain_loop(module: nn.Module) -> None:
    """Each matrix by itself, as the published code does it: its norms, the quotient, and a copy into place."""
    for _, matrix in stream_matrices(module):
        weight = matrix.weight
        weight.copy_(weight / weight.norm(dim=matrix.norm_dim, keepdim=True))


def measure_projection(args: Sequence[str], rounds: int, warmup: int, threads: int, compiled: bool) -> dict[str, Any]:
    """Seconds of a run's own projection, of the plain loop, and of the whole step, the three in turns.

    Args:
        args: the arguments of `fit`.
        rounds: how many count.
        warmup: how many come first.
        threads: CPU threads.
        compiled: whether the step is compiled.

    Returns:
        The seconds of each; the ratios of the projection to the loop and to the step, which contains it; `error`, the largest
        departure from length one that each of the first two leaves.

    Raises:
        InputError: a config whose runs project nothing.
    """
    cli = load(args)
    if not cli.normalize_weights.every_n_steps:
        raise InputError("normalize_weights.every_n_steps is 0 in these files: measure the projection of a config that has one")
    device = shared_device({STEP: cli})
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        arm = Arm(cli, device, compiled)
        arm.step()
        calls: dict[str, Callable[[], object]] = {
            PROJECTION: partial(cli.normalize_weights.normalize, arm.module),
            LOOP: partial(plain_loop, arm.module),
            STEP: arm.step,
        }
        seconds = time_rounds(calls, rounds, warmup, device)
        error = {}
        for name in (PROJECTION, LOOP):
            arm.step()
            calls[name]()
            error[name] = weight_error(arm.module)
    finally:
        torch.set_num_threads(before)
    matrices = [matrix.weight for _, matrix in stream_matrices(arm.module)]
    return {
        **machine(device, threads, rounds),
        "matrices": len(matrices),
        "entries": sum(weight.numel() for weight in matrices),
        "precision": arm.precision,
        "compiled": arm.compiled,
        "tokens_per_step": arm.tokens,
        "error": error,
        "arms": {name: {"seconds": times, "median": median(times)} for name, times in seconds.items()},
        "ratios": {name: ratio(seconds[PROJECTION], seconds[name]) for name in (LOOP, STEP)},
    }
