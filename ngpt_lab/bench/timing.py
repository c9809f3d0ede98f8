"""How time is taken: arms in turns, the clock of the device, ratios paired by round."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any

import torch
from scipy.stats import t as student

from ngpt_lab.training.run_record import processor


def clock(device: torch.device) -> float:
    """Seconds: this process's CPU time, or on a GPU the wall time at which its work is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def time_rounds(
    steps: Mapping[str, Callable[[], object]], rounds: int, warmup: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each step in each counted round; every second round goes through the arms backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for at in range(warmup + rounds):
        for name in list(steps) if at % 2 else reversed(list(steps)):
            start = clock(device)
            steps[name]()
            if at >= warmup:
                seconds[name].append(clock(device) - start)
    return seconds


def ratio(candidate: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Paired ratios of two arms' seconds: each round's, their median, range, and the 95% half-width of their mean."""
    per_round = [a / b for a, b in zip(candidate, baseline, strict=True)]
    n = len(per_round)
    half_width = student.ppf(0.975, n - 1) * stdev(per_round) / n**0.5 if n > 1 else float("nan")
    return {
        "per_round": per_round,
        "median": median(per_round),
        "mean": mean(per_round),
        "half_width": float(half_width),
        "low": min(per_round),
        "high": max(per_round),
    }


def machine(device: torch.device, threads: int, rounds: int) -> dict[str, Any]:
    """What every interleaved measurement says of how and where it was taken."""
    cpu = device.type == "cpu"
    return {
        "unit": "process CPU seconds" if cpu else "seconds",
        "threads": threads,
        "rounds": rounds,
        "device": {"kind": device.type, "name": processor() if cpu else torch.cuda.get_device_name(device)},
        "torch": torch.__version__,
    }
