"""A plan: parameters, memory, operations and time of a run, before anything runs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ngpt_lab.bench.arm import precision
from ngpt_lab.bench.floor import WEIGHT_BYTES, Floor, Hardware, floor
from ngpt_lab.data.loader import Rank
from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.models.decoder import Block
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.nn.checkpointing import FullCheckpointing, SelectiveCheckpointing
from ngpt_lab.plan.compiled import kept_when_compiled
from ngpt_lab.plan.layout import Layout, layout, local_sizes
from ngpt_lab.plan.memory import Memory, memory, parameters_by_part
from ngpt_lab.plan.rehearsal import Step, kept, rehearse
from ngpt_lab.plan.traffic import sent
from ngpt_lab.training import LanguageModel
from ngpt_lab.training.cli import DryCLI

# Of the floor's speed.
EFFICIENCY = (0.4, 0.85)
CHECKPOINTING: dict[str, Callable[..., Any]] = {
    "all kept": Block.__call__,
    "SelectiveCheckpointing": SelectiveCheckpointing(),
    "FullCheckpointing": FullCheckpointing(),
}
DIMS = "--model.init_args.backbone.init_args.dims"


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Args:
        model: the backbone's class.
        layout: how it is divided.
        precision: Lightning's name of it.
        parameters: entries by part.
        micro_batch: windows and tokens of a window that a process takes at once.
        accumulated: micro-batches of a step.
        steps: optimizer steps of the run.
        tokens_per_step: over all processes and micro-batches.
        flops_per_token: operations to train on a token.
        memory: of one process.
        compiled: whether the backbone is compiled.
        activations: bytes of all activations, eager with each way of checkpointing, and compiled with the config's.
        sent: bytes that one process sends to others in a step.
        hardware: what each process runs on.
        floor: of a step of one process.
        efficiency: the least and the most of the floor's speed that is reckoned with.
    """

    model: str
    layout: Layout
    precision: str
    parameters: dict[str, int]
    micro_batch: tuple[int, int]
    accumulated: int
    steps: int
    tokens_per_step: int
    flops_per_token: int
    memory: Memory
    compiled: bool
    activations: dict[str, int]
    sent: int
    hardware: Hardware
    floor: Floor
    efficiency: tuple[float, float]

    @property
    def tokens(self) -> int:
        """Of the whole run."""
        return self.tokens_per_step * self.steps

    @property
    def flops(self) -> int:
        """Operations of the whole run's training; evaluations are left out."""
        return self.flops_per_token * self.tokens

    @property
    def step_seconds(self) -> tuple[float, float]:
        """The least and the most a step may take."""
        low, high = self.efficiency
        return self.floor.seconds / high, self.floor.seconds / low

    @property
    def needed(self) -> float | None:
        """The share of the hardware's memory, where that is known."""
        return self.memory.total / self.hardware.memory if self.hardware.memory else None


def plan(args: Sequence[str], hardware: Hardware, efficiency: tuple[float, float] = EFFICIENCY) -> Plan:
    """The plan of a run.

    Args:
        args: the arguments of `fit`.
        hardware: the GPU of each process, or, with no memory told, this machine's CPU.
        efficiency: the least and the most of the floor's speed to reckon with.

    Raises:
        InputError: a config that is no language model's, or that cannot be divided as it says.
    """
    cli = DryCLI(list(args))
    if not isinstance(cli.model, LanguageModel) or not isinstance(cli.datamodule, WindowDataModule):
        raise InputError(f"the model is a {type(cli.model).__name__}: only a LanguageModel on windows of text can be planned")
    settings = cli.settings
    divided = layout(settings)
    name, plugin = precision(settings["trainer.precision"], torch.device("cpu"))
    local = _local(cli, list(args), divided)
    data, gpu = cli.datamodule, hardware.memory is not None
    hardware = share_of(hardware, divided.processes // divided.nodes)
    micro_batch = Rank(0, divided.data).share(data.batch_size, "--data.batch_size"), data.seq_len
    accumulated, steps = settings["trainer.accumulate_grad_batches"], settings["trainer.max_steps"]
    if steps < 1:
        raise InputError(f"trainer.max_steps is {steps}: a plan needs the length of the run")
    if accumulated < 1:
        raise InputError(f"trainer.accumulate_grad_batches is {accumulated}: a step needs at least 1")
    step = Step(micro_batch, accumulated, settings["trainer.gradient_clip_val"], plugin, gpu)
    rehearsed = rehearse(local, step)
    held = memory(rehearsed, local.model.backbone, divided)
    ways = {f"eager, {name}": kept(local, step, carry_out) for name, carry_out in CHECKPOINTING.items()}
    compiled = kept_when_compiled(local, step)
    tokens_per_step = data.tokens_per_batch * accumulated
    return Plan(
        model=type(cli.model.backbone).__name__,
        layout=divided,
        precision=name,
        parameters=parameters_by_part(cli.model.backbone),
        micro_batch=micro_batch,
        accumulated=accumulated,
        steps=steps,
        tokens_per_step=tokens_per_step,
        flops_per_token=flops_per_token(cli.model.backbone, data.seq_len),
        memory=replace(held, activations={"compiled": compiled}) if cli.model.compile_backbone else held,
        compiled=cli.model.compile_backbone,
        activations={**ways, "compiled": compiled},
        sent=sent(rehearsed, cli.model.backbone.dims, divided, micro_batch, accumulated, name),
        hardware=hardware,
        floor=least(local.model.backbone, divided, micro_batch[0] * accumulated, data.seq_len, name, hardware),
        efficiency=efficiency,
    )


def _local(cli: DryCLI, args: list[str], divided: Layout) -> DryCLI:
    """The model of which one process of tensor parallelism carries out all."""
    if divided.tensor == 1:
        return cli
    sizes = local_sizes(cli.model.backbone, divided.tensor)
    return DryCLI([*args, *(f"{DIMS}.{name}={size}" for name, size in sizes.items())])


def least(decoder: Decoder, divided: Layout, windows: int, seq_len: int, name: str, hardware: Hardware) -> Floor:
    """The floor of a step of one process, whose optimizer moves its share of the weights alone."""
    whole = floor(decoder, seq_len, windows * seq_len, name, hardware)
    of_optimizer = 7 * WEIGHT_BYTES[name] * sum(parameter.numel() for parameter in decoder.parameters())
    moved = whole.bytes - of_optimizer * (1 - 1 / divided.shards)
    return replace(whole, bytes=moved, bytes_seconds=moved / hardware.bandwidth)


def share_of(hardware: Hardware, processes: int) -> Hardware:
    """What each of a machine's `processes` has: a GPU, or, where no memory is told, a share of this machine's CPU."""
    if hardware.memory is not None:
        return hardware
    return replace(
        hardware,
        flops={of: rate / processes for of, rate in hardware.flops.items()},
        bandwidth=hardware.bandwidth / processes,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / processes,
    )


def as_json(told: Plan) -> dict[str, Any]:
    """A plan as plain data; sizes in bytes, times in seconds."""
    low, high = told.step_seconds
    return {
        "model": told.model,
        "parameters": {**told.parameters, "total": sum(told.parameters.values())},
        "layout": {"strategy": told.layout.strategy, **asdict(told.layout)},
        "precision": told.precision,
        "compile": told.compiled,
        "micro_batch": {"windows": told.micro_batch[0], "seq_len": told.micro_batch[1], "accumulated": told.accumulated},
        "memory": {**asdict(told.memory), "total": told.memory.total},
        "activations": told.activations,
        "needed": told.needed,
        "flops_per_token": told.flops_per_token,
        "flops": told.flops,
        "tokens_per_step": told.tokens_per_step,
        "tokens": told.tokens,
        "steps": told.steps,
        "sent_per_step": told.sent,
        "hardware": asdict(told.hardware),
        "floor": {**asdict(told.floor), "seconds": told.floor.seconds},
        "efficiency": list(told.efficiency),
        "step_seconds": [low, high],
        "seconds": [low * told.steps, high * told.steps],
    }
