"""What a training step costs: the arms take turns in one process, so that a machine's drift hits all of them alike."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ngpt_lab.bench.arm import OURS, PARTS, Arm, load, shared_device
from ngpt_lab.bench.floor import Hardware, floor
from ngpt_lab.bench.footprint import peak_bytes, saved_for_backward
from ngpt_lab.bench.profiling import kernel_shares
from ngpt_lab.bench.timing import machine, ratio, time_rounds
from ngpt_lab.errors import InputError
from ngpt_lab.models.flops import flops_per_token

__all__ = ["Arm", "load", "measure", "shared_device"]


@dataclass(frozen=True)
class First:
    """The first step of an arm, which compiles: its loss, and its seconds of wall time."""

    loss: float
    seconds: float


def measure(
    arms: Mapping[str, Sequence[str]],
    baseline: str,
    rounds: int = 15,
    warmup: int = 3,
    compiled: bool | Collection[str] = False,
    threads: int = 1,
    *,
    implementations: Mapping[str, str] | None = None,
    hardware: Callable[[torch.device], Hardware] | None = None,
    kernels: bool = False,
) -> dict[str, Any]:
    """Time one training step of each arm in every round, in alternating order, after `warmup` rounds that do not count.

    Every arm's first step, which compiles, comes before these and is told by itself; what a step keeps in memory is measured
    after them.

    Args:
        arms: each arm's name and arguments of `fit`.
        baseline: the arm the others are divided by.
        rounds: how many count.
        warmup: how many come first.
        compiled: whether all backbones are compiled, also those whose config does not ask for it, or the arms of which they
            are.
        threads: CPU threads.
        implementations: whose model an arm is, where it is not ours: a name of `ngpt_lab.bench.others`.
        hardware: what a device can do, for the floor and the share of it that is reached.
        kernels: whether to profile one step more, for the share of each kind of kernel.

    Returns:
        What step_cost.json holds: seconds per arm and round, what is known of each arm, and for each other arm the ratio to
        the baseline, paired by round, with its median, range, and the 95% half-width of its mean (t interval). Arms that are
        not ours and fail are left out, and the reason is told.

    Raises:
        InputError: the arms do not share a device, or one asks for what the bench does not measure.
    """
    loaded = {name: load(args) for name, args in arms.items()}
    device = shared_device(loaded)
    machine_can = hardware(device) if hardware else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        built = {
            name: Arm(cli, device, is_compiled(name, compiled), (implementations or {}).get(name, OURS))
            for name, cli in loaded.items()
        }
        firsts, left_out = first_steps(built, baseline)
        seconds = time_rounds({name: arm.step for name, arm in built.items()}, rounds, warmup, device)
        told = {
            name: {**describe(arm, seconds[name], threads, machine_can), **first_figures(firsts[name])}
            for name, arm in built.items()
        }
        for name, arm in built.items():
            told[name] |= memory_figures(arm) | ({"kernels": kernel_shares(device, arm.step)} if kernels else {})
    finally:
        torch.set_num_threads(before)
    return {
        **machine(device, threads, rounds),
        "unit": "process CPU seconds per step" if device.type == "cpu" else "seconds per step",
        "compiled": all(arm.compiled for arm in built.values()),
        "baseline": baseline,
        "left_out": left_out,
        **({"hardware": asdict(machine_can)} if machine_can else {}),
        "arms": told,
        "ratios": {name: ratio(seconds[name], seconds[baseline]) for name in built if name != baseline},
    }


def is_compiled(name: str, compiled: bool | Collection[str]) -> bool:
    """Whether the arm of a name is compiled though its config does not say so."""
    return compiled if isinstance(compiled, bool) else name in compiled


def first_steps(arms: dict[str, Arm], baseline: str) -> tuple[dict[str, First], dict[str, str]]:
    """Take every arm's first step; others' code that fails at it is taken out of `arms`, with the reason.

    Raises:
        InputError: it is the baseline's.
    """
    firsts: dict[str, First] = {}
    left_out: dict[str, str] = {}
    for name, arm in list(arms.items()):
        start = time.perf_counter()
        try:
            loss = float(arm.step())
        except Exception as error:  # whatever others' code makes of it
            if arm.implementation == OURS:
                raise
            told = str(error).strip().partition("\n")[0]
            left_out[name] = f"{arm.implementation} fails with {arm.precision}: {told}"
            del arms[name]
        else:
            firsts[name] = First(loss, time.perf_counter() - start)
    if baseline in left_out:
        raise InputError(f"the baseline {baseline} cannot be measured ({left_out[baseline]}): choose another")
    return firsts, left_out


def first_figures(first: First) -> dict[str, float]:
    """What step_cost.json says of a first step."""
    return {"first_loss": first.loss, "first_step_seconds": first.seconds}


def describe(arm: Arm, seconds: Sequence[float], threads: int = 1, hardware: Hardware | None = None) -> dict[str, Any]:
    """What step_cost.json says of an arm, whose latest steps took `seconds`."""
    elapsed = median(seconds) / (threads if arm.device.type == "cpu" else 1)
    flops = flops_per_token(arm.decoder, arm.seq_len)
    return {
        "implementation": arm.implementation,
        "attention": arm.attention,
        "parameters": sum(p.numel() for p in arm.module.backbone.parameters()),
        "precision": arm.precision,
        "compiled": arm.compiled,
        "seq_len": arm.seq_len,
        "tokens_per_step": arm.tokens,
        "seconds": list(seconds),
        "median": median(seconds),
        "tokens_per_second": arm.tokens / elapsed,
        "flops_per_token": flops,
        "parts": parts(arm, len(seconds)),
        **({"mfu": reached(arm, elapsed, hardware)[0], "floor": reached(arm, elapsed, hardware)[1]} if hardware else {}),
    }


def reached(arm: Arm, elapsed: float, hardware: Hardware) -> tuple[float, dict[str, float]]:
    """Model FLOPs utilization, and the floor with the share of its tokens a second that an arm reaches."""
    least = floor(arm.decoder, arm.seq_len, arm.tokens, arm.precision, hardware)
    utilization = least.flops / elapsed / hardware.flops[arm.precision]
    return utilization, {**asdict(least), "seconds": least.seconds, "share": least.seconds / elapsed}


def parts(arm: Arm, steps: int) -> dict[str, float]:
    """Median seconds of each part of the latest steps."""
    each = [marks.seconds() for marks in arm.marks[-steps:]]
    return {part: median(step[part] for step in each) for part in PARTS}


def memory_figures(arm: Arm) -> dict[str, int]:
    """What step_cost.json says of an arm's memory."""
    return {"saved_for_backward_bytes": saved_for_backward(arm), "peak_bytes": peak_bytes(arm)}
