"""What a training step costs: the arms take turns in one process, so that a machine's drift hits all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

import torch
from lightning.pytorch import seed_everything
from scipy.stats import t as student
from torch.nn.utils import clip_grad_norm_

from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.module import require_compiler
from ngpt_lab.training.run_record import processor

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Arm:
    """One arm's step, ready to be called, and what it is."""

    step: Callable[[], None]
    parameters: int
    tokens: int
    precision: str


def build_arm(args: Sequence[str], device: torch.device, compiled: bool) -> Arm:
    """The training step of a config: forward, backward, clip, optimizer, projection, on batches of its own data."""
    seed_everything(0, verbose=False)
    cli = DryCLI(list(args), on=device.type)
    cli.datamodule.setup("fit")
    batches = iter(cli.datamodule.train_dataloader())
    tokens, targets = (part.to(device) for part in next(batches))
    module, settings = cli.model, cli.settings
    optimizer = module.optimizer_factory.build(module)
    cli.normalize_weights.attach(optimizer, module, lambda: 0)
    if compiled:
        require_compiler(device)
        module.backbone.compile(fullgraph=True)
    precision = str(settings["trainer.precision"])
    autocast = torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()

    def step() -> None:
        with autocast:
            loss = module.backbone(tokens, targets)
        loss.backward()
        clip_grad_norm_(module.parameters(), settings["trainer.gradient_clip_val"] or float("inf"))
        optimizer.step()
        optimizer.zero_grad()

    return Arm(step, cli.parameters, tokens.numel(), precision)


def clock(device: torch.device) -> float:
    """Seconds: this process's CPU time, or on a GPU the wall time at which its work is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(
    arms: Mapping[str, Sequence[str]],
    baseline: str,
    rounds: int = 15,
    warmup: int = 3,
    compiled: bool = False,
    threads: int = 1,
) -> dict[str, Any]:
    """Time one training step of each arm in every round, in alternating order, after `warmup` rounds that do not count.

    Args:
        arms: each arm's name and arguments of `fit`.
        baseline: the arm the others are divided by.
        rounds: how many count.
        warmup: how many come first.
        compiled: whether backbones are compiled.
        threads: CPU threads.

    Returns:
        What step_cost.json holds: seconds per arm and round, and for each other arm the ratio to the baseline, paired by
        round, with its median, range, and the 95% half-width of its mean (t interval).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        built = {name: build_arm(args, device, compiled) for name, args in arms.items()}
        seconds = time_rounds({name: arm.step for name, arm in built.items()}, rounds, warmup, device)
    finally:
        torch.set_num_threads(before)
    return {
        "unit": "process CPU seconds per step" if device.type == "cpu" else "seconds per step",
        "threads": threads,
        "rounds": rounds,
        "compiled": compiled,
        "baseline": baseline,
        "device": {"kind": device.type, "name": processor() if device.type == "cpu" else torch.cuda.get_device_name(device)},
        "arms": {
            name: {
                "parameters": arm.parameters,
                "precision": arm.precision,
                "tokens_per_step": arm.tokens,
                "seconds": seconds[name],
                "median": median(seconds[name]),
                "tokens_per_second": arm.tokens / median(seconds[name]),
            }
            for name, arm in built.items()
        },
        "ratios": {name: ratio(seconds[name], seconds[baseline]) for name in arms if name != baseline},
    }


def time_rounds(
    steps: Mapping[str, Callable[[], None]], rounds: int, warmup: int, device: torch.device
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
