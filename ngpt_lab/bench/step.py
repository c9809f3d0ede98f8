"""What a training step costs: the arms take turns in one process, so that a machine's drift hits all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import mean, median, stdev
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import seed_everything
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from scipy.stats import t as student

from ngpt_lab.data.windows import Batch
from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.module import require_compiler
from ngpt_lab.training.run_record import processor


class Arm:
    """One arm: the step that a run of its config takes, less the learning rate's schedule, on the run's first batches.

    Args:
        cli: the arm's data and model, as `fit` builds them.
        device: where it runs.
        compiled: whether to compile the backbone even if the config does not ask for it.

    Raises:
        InputError: a precision that is not measured, or no compiler to compile with.
    """

    def __init__(self, cli: DryCLI, device: torch.device, compiled: bool) -> None:
        settings = cli.settings
        self.precision, self._plugin = precision(settings["trainer.precision"], device)
        self.module = cli.model.to(device)
        self._plugin.convert_module(self.module)  # in place
        self._clip = settings["trainer.gradient_clip_val"]
        self._optimizer = self.module.optimizer_factory.build(self.module)
        self._begun = 0
        cli.normalize_weights.attach(self._optimizer, self.module, lambda: self._begun)
        if cli.normalize_weights.every_n_steps:
            cli.normalize_weights.normalize(self.module)  # as a fresh run does before its first step
        self.compiled = compiled or self.module.compile_backbone
        if self.compiled:
            require_compiler(device)
            self.module.backbone.compile(fullgraph=True)
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        batches = islice(cli.datamodule.train_dataloader(), settings["trainer.accumulate_grad_batches"])
        self._batches: list[Batch] = [move_data_to_device(batch, device) for batch in batches]

    @property
    def tokens(self) -> int:
        """Tokens of one step, over all micro-batches."""
        return sum(batch.tokens.numel() for batch in self._batches)

    def step(self) -> None:
        """Forward and backward on every micro-batch, then clip, optimizer and projection."""
        self._begun += 1
        self._optimizer.zero_grad()
        for tokens, targets, documents in self._batches:
            with self._plugin.forward_context():
                loss = self.module.backbone(tokens, targets, documents=documents)
            (loss / len(self._batches)).backward()
        self.module.configure_gradient_clipping(self._optimizer, gradient_clip_val=self._clip)
        self._optimizer.step()

    def describe(self, seconds: Sequence[float]) -> dict[str, Any]:
        """What step_cost.json says of the arm, whose counted steps took `seconds`."""
        return {
            "parameters": sum(p.numel() for p in self.module.backbone.parameters()),
            "precision": self.precision,
            "compiled": self.compiled,
            "tokens_per_step": self.tokens,
            "seconds": list(seconds),
            "median": median(seconds),
            "tokens_per_second": self.tokens / median(seconds),
        }


def precision(asked: Any, device: torch.device) -> tuple[str, Precision]:
    """The full name of `trainer.precision`, and what Lightning runs it with.

    Raises:
        InputError: any but the three that are measured.
    """
    if str(asked) == "bf16-mixed":
        return "bf16-mixed", MixedPrecision("bf16-mixed", device.type)
    if str(asked) == "bf16-true":
        return "bf16-true", HalfPrecision("bf16-true")
    if str(asked) in ("32-true", "32"):
        return "32-true", Precision()
    raise InputError(
        f"trainer.precision is {asked}, but the bench measures only 32-true, bf16-mixed and bf16-true: use one of them"
    )


def load(args: Sequence[str]) -> DryCLI:
    """An arm's data and model, with the same random numbers whichever arms come before it."""
    seed_everything(0, verbose=False)
    return DryCLI(list(args), on="cpu")


def device_type(accelerator: Any) -> str:
    """The device type that a `trainer.accelerator` means on this machine.

    Raises:
        InputError: it means none, or one that is not measured.
    """
    cuda = torch.cuda.is_available()
    if accelerator == "auto":
        return "cuda" if cuda else "cpu"
    if accelerator not in ("cpu", "gpu", "cuda"):
        raise InputError(f"trainer.accelerator is {accelerator}, but the bench measures on cpu, gpu, cuda or auto: use one")
    if accelerator != "cpu" and not cuda:
        raise InputError(f"trainer.accelerator is {accelerator}, but this machine has no CUDA device: use cpu or auto")
    return "cpu" if accelerator == "cpu" else "cuda"


def shared_device(arms: Mapping[str, DryCLI]) -> torch.device:
    """The device that all arms ask for.

    Raises:
        InputError: they ask for different ones, or for one that cannot be had.
    """
    asked = {name: device_type(cli.settings.get("trainer.accelerator")) for name, cli in arms.items()}
    if len(set(asked.values())) > 1:
        told = ", ".join(f"{name} on {kind}" for name, kind in asked.items())
        raise InputError(f"the arms would run on different devices ({told}): give all the same trainer.accelerator")
    return torch.device(next(iter(asked.values())))


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
        compiled: whether all backbones are compiled, also those whose config does not ask for it.
        threads: CPU threads.

    Returns:
        What step_cost.json holds: seconds per arm and round, and for each other arm the ratio to the baseline, paired by
        round, with its median, range, and the 95% half-width of its mean (t interval).

    Raises:
        InputError: the arms do not share a device, or one asks for what the bench does not measure.
    """
    loaded = {name: load(args) for name, args in arms.items()}
    device = shared_device(loaded)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        built = {name: Arm(cli, device, compiled) for name, cli in loaded.items()}
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
        "arms": {name: arm.describe(seconds[name]) for name, arm in built.items()},
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
