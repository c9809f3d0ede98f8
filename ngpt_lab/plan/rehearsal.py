"""A training step rehearsed on fake tensors: every op is carried out in shapes and types alone, and what it would hold counted.

A 15B step takes seconds and no memory; the model is the one that would be trained, whatever its parts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ngpt_lab.bench.footprint import optimizer_state
from ngpt_lab.data.windows import Batch
from ngpt_lab.models import Decoder
from ngpt_lab.nn.attend_blocked import BLOCKED
from ngpt_lab.nn.attend_formula import EAGER
from ngpt_lab.nn.attend_sdpa import SDPA, SDPA_MATH
from ngpt_lab.plan.live import LiveBytes
from ngpt_lab.training.cli import DryCLI

LOSS = "logits and loss"
HELD = ("weights", "gradients", "optimizer")
# What keeps all scores for the backward pass; every fused attention keeps queries, keys, values, its output and a number a
# query, whoever wrote it.
NOT_FUSED = [function.name for function in (EAGER, BLOCKED, SDPA_MATH)]


@dataclass(frozen=True)
class Step:
    """An optimizer step of one process.

    Args:
        batch: windows and tokens of a window of a micro-batch.
        accumulated: micro-batches.
        clip: the length that gradients are cut to.
        precision: Lightning's.
        gpu: whether it is planned for one.
    """

    batch: tuple[int, int]
    accumulated: int
    clip: float | None
    precision: Precision
    gpu: bool


@dataclass(frozen=True)
class Rehearsal:
    """Bytes of a step in one process, nothing sharded.

    Args:
        weights: of all parameters.
        gradients: of all parameters.
        optimizer: the optimizer's state.
        activations: what lives between forward and backward besides, by the part of the model that made it.
        peak: the most that lives at once.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: Mapping[str, int]
    peak: int


def rehearse(cli: DryCLI, step: Step) -> Rehearsal:
    """Rehearse the second optimizer step of a run, which finds gradients and optimizer state.

    CPU ops stand for those of every device: what they keep for the backward pass is the same.

    Args:
        cli: the data and the model, which is on the meta device and stays as it is.
        step: what is rehearsed.
    """
    module, normalize = deepcopy(cli.model), cli.normalize_weights
    step.precision.convert_module(module)
    with FakeTensorMode():
        become_fake(module, step.gpu)
        optimizer = module.optimizer_factory.build(module)
        normalize.attach(optimizer, module, lambda: normalize.every_n_steps or 1)
        with LiveBytes(module.parameters()) as live, labelled(module.backbone, live):
            for parameter in module.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            optimizer.step()
            live.relabel((p.grad for p in module.parameters() if p.grad is not None), "gradients")
            live.relabel(optimizer_state(optimizer), "optimizer")
            live.restart()
            held = {name: live.live[name] for name in HELD}
            loss = forward(module.backbone, fake_batch(cli, step), step)
            activations = {name: size for name, size in live.live.items() if size and name not in HELD}
            if step.accumulated == 1:
                optimizer.zero_grad()  # Lightning does so between the two
            loss.backward()
            module.configure_gradient_clipping(optimizer, step.clip)
            optimizer.step()
            return Rehearsal(held["weights"], held["gradients"], held["optimizer"], activations, live.peak)


def kept(cli: DryCLI, step: Step, carry_out: Callable[..., Any]) -> int:
    """Bytes that an eager forward pass of a micro-batch keeps, weights apart, where `carry_out` carries blocks out."""
    module = deepcopy(cli.model)
    step.precision.convert_module(module)
    module.backbone.carry_out = carry_out
    with FakeTensorMode():
        become_fake(module, step.gpu)
        with LiveBytes(module.parameters()) as live:
            loss = forward(module.backbone, fake_batch(cli, step), step)
            size = live.live.total() - live.live["weights"]
    del loss  # holds what was kept
    return size


def become_fake(module: nn.Module, gpu: bool) -> None:
    """Put fake CPU tensors where those of `module`, which is on the meta device, are; to be called in a fake mode."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) not in made:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                made[id(parameter)] = nn.Parameter(fake, parameter.requires_grad)
            setattr(part, name, made[id(parameter)])
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    for decoder in (part for part in module.modules() if isinstance(part, Decoder)):
        if gpu and decoder.attend.name not in NOT_FUSED:
            decoder.attend = SDPA


def fake_batch(cli: DryCLI, step: Step) -> Batch:
    """A micro-batch of the shapes that the data module gives."""
    tokens = torch.empty(step.batch, dtype=torch.int64)
    apart = str(cli.settings.get("data.init_args.windows.class_path")).endswith("MaskedDocuments")
    return Batch(tokens, torch.empty_like(tokens), torch.empty_like(tokens) if apart else None)


def forward(decoder: Decoder, batch: Batch, step: Step) -> Tensor:
    """The loss of a micro-batch, as training computes it."""
    with step.precision.forward_context():
        return decoder(batch.tokens, batch.targets, documents=batch.documents)


@contextmanager
def labelled(decoder: Decoder, live: LiveBytes) -> Iterator[None]:
    """Within it, what the forward pass makes is told apart by part."""
    inside = [LOSS]

    def enter(label: str, *_: Any) -> None:
        inside.append(label)
        live.label = label

    def leave(*_: Any) -> None:
        # Recomputation may leave a part half way.
        inside[1:] = inside[1:-1]
        live.label = inside[-1]

    parts: dict[str, Iterable[nn.Module]] = {
        "embedding": [decoder.embedding],
        "final norm": [decoder.final],
        "stream": decoder.blocks,
    }
    parts |= {name: [getattr(block, name) for block in decoder.blocks] for name in ("attention", "mlp")}
    hooks = []
    for label, members in parts.items():
        for part in members:
            hooks += [part.register_forward_pre_hook(partial(enter, label)), part.register_forward_hook(leave)]
    live.label = LOSS
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
