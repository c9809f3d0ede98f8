"""One arm of the step benchmark: the whole step of a run, and when each of its parts ended."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import seed_everything
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from torch import Tensor

from ngpt_lab.bench.others import OtherModel, other_model
from ngpt_lab.data.windows import Batch
from ngpt_lab.errors import InputError
from ngpt_lab.machine import keep_freed_memory
from ngpt_lab.models import Decoder
from ngpt_lab.training.attention import settle_attention
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.module import require_compiler
from ngpt_lab.training.optimizers import AdamW, OptimizerFactory

OURS = "ngpt-lab"
PARTS = ("forward", "backward", "clip", "optimizer", "projection")


class Marks:
    """When each part of one step ended; a GPU is asked afterwards, so that nothing waits for it in between."""

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._marks: list[tuple[str, Any]] = []
        self("start")

    def __call__(self, part: str) -> None:
        """The part ends now."""
        if self._on_cpu:
            moment: Any = time.process_time()
        else:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((part, moment))

    def seconds(self) -> dict[str, float]:
        """What each part took; a GPU must have done its work."""
        total = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            total[part] += after - before if self._on_cpu else before.elapsed_time(after) / 1e3
        return total


class Arm:
    """One arm: the step that a run of its config takes, less the learning rate's schedule, on the run's first batches.

    `marks` holds when the parts of every step so far ended.

    Args:
        cli: the arm's data and model, as `fit` builds them.
        device: where it runs.
        compiled: whether to compile the backbone even if the config does not ask for it.
        implementation: whose model it is: `ngpt-lab`, or a name of `ngpt_lab.bench.others`, which is built at the sizes of
            the config's and stepped by the same code, with AdamW of the same settings.

    Raises:
        InputError: a precision that is not measured, an implementation that is not there or cannot have these sizes, or no
            compiler to compile with.
    """

    def __init__(self, cli: DryCLI, device: torch.device, compiled: bool, implementation: str = OURS) -> None:
        keep_freed_memory()  # as fit does
        settings = self.settings = cli.settings
        self.implementation, self.device = implementation, device
        self.precision, self._plugin = precision(settings["trainer.precision"], device)
        self.module = cli.model
        if implementation != OURS:
            self.module.backbone = other_model(implementation, cli.model.backbone)  # type: ignore[assignment]
        self.module.to(device)
        self._plugin.convert_module(self.module)  # in place
        self._clip = settings["trainer.gradient_clip_val"]
        self._begun = 0
        self.marks: list[Marks] = []
        self._attach_optimizer(cli)
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        self.compiled = self.module.compile_backbone = compiled or self.module.compile_backbone
        self.attention = self._settled(cli)
        if self.compiled:
            require_compiler(device)
            self.module.compile_now() if implementation == OURS else self.module.backbone.compile()
        batches = islice(cli.datamodule.train_dataloader(), settings["trainer.accumulate_grad_batches"])
        self.batches: list[Batch] = [move_data_to_device(batch, device) for batch in batches]

    def _settled(self, cli: DryCLI) -> str:
        """Which attention function computes the step, settled as a run settles it."""
        if self.implementation != OURS:
            return self.implementation
        settled = settle_attention(self.module, self.device, self.precision, cli.datamodule)
        return f"{settled['used']} ({settled['kernel']})"

    def _attach_optimizer(self, cli: DryCLI) -> None:
        backbone: Any = self.module.backbone
        other, factory = isinstance(backbone, OtherModel), self.module.optimizer_factory
        build = partial(plain_adamw, factory) if other else factory.build
        self.optimizer = build(self.module)
        self.optimizer.register_step_post_hook(lambda *_: self.marks[-1]("optimizer"))
        cli.normalize_weights.attach(self.optimizer, self.module, lambda: self._begun)
        if cli.normalize_weights.every_n_steps:
            cli.normalize_weights.normalize(self.module)  # as a fresh run does before its first step
        if other:
            self.optimizer.register_step_post_hook(lambda *_: backbone.project())

    @property
    def decoder(self) -> Decoder:
        """Ours, or one of ours that has the sizes and operations of another's; for counting."""
        backbone: Any = self.module.backbone
        return backbone.like if isinstance(backbone, OtherModel) else backbone

    @property
    def tokens(self) -> int:
        """Tokens of one step, over all micro-batches."""
        return sum(batch.tokens.numel() for batch in self.batches)

    @property
    def seq_len(self) -> int:
        """Tokens of a sequence."""
        return int(self.batches[0].tokens.shape[1])

    def loss(self, batch: Batch) -> Tensor:
        """The forward pass: the mean loss of a micro-batch."""
        with self._plugin.forward_context():
            return self.module.backbone(batch.tokens, batch.targets, documents=batch.documents)

    def step(self) -> Tensor:
        """Forward and backward on every micro-batch, then clip, optimizer and projection; returns the mean loss."""
        self._begun += 1
        mark = Marks(self.device)
        self.marks.append(mark)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for batch in self.batches:
            loss = self.loss(batch) / len(self.batches)
            mark("forward")
            loss.backward()
            total += loss.detach()
            mark("backward")
        self.module.configure_gradient_clipping(self.optimizer, gradient_clip_val=self._clip)
        mark("clip")
        self.optimizer.step()
        mark("projection")
        return total


def plain_adamw(factory: OptimizerFactory, model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW of a factory's settings, fused, for a model whose parameters say nothing of what they are: matrices decay.

    Raises:
        InputError: the factory makes another optimizer.
    """
    if not isinstance(factory, AdamW):
        raise InputError(f"other implementations are stepped with AdamW, not {type(factory).__name__}: leave one of them out")
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": factory.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=factory.lr, betas=factory.betas, eps=factory.eps, fused=True)


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
        f"trainer.precision is {asked}, which is neither measured nor planned: use 32-true, bf16-mixed or bf16-true"
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
