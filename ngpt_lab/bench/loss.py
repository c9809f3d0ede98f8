"""What the loss over a vocabulary costs: from whole logits, in chunks, and torch's own, in turns in one process."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.bench.profiling import peak_growth
from ngpt_lab.bench.timing import machine, ratio, time_rounds
from ngpt_lab.errors import InputError
from ngpt_lab.nn.chunked_loss import chunked_cross_entropy
from ngpt_lab.nn.product import product

WHOLE, CHUNKED, TORCH = "whole", "chunked", "torch"
PRECISIONS = ("32-true", "bf16-mixed")
# Mean loss of features (B, T, C), matrix (V, C) and targets (B, T).
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Work:
    """What every arm does in every round, forward and backward.

    Args:
        vocab_size: token ids.
        d_model: channels of a feature.
        tokens: how many there are.
        precision: 32-true, or bf16-mixed for products under autocast.
    """

    vocab_size: int = 32000
    d_model: int = 512
    tokens: int = 2048
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}: it must be at least 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision is {self.precision}: choose {' or '.join(PRECISIONS)}")


def whole(features: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    """From logits (B, T, V) that are held until the backward pass, in float32."""
    logits = product(features, matrix)
    return F.cross_entropy(logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32)), targets.flatten())


def losses() -> dict[str, Loss]:
    """What is measured: torch's own where it has one."""
    found: dict[str, Loss] = {WHOLE: whole, CHUNKED: chunked_cross_entropy}
    own = getattr(F, "linear_cross_entropy", None)
    if own is not None:
        options = torch.nn.LinearCrossEntropyOptions()
        found[TORCH] = lambda features, matrix, targets: own(
            features.flatten(0, -2), matrix, targets.flatten(), options=options
        )
    return found


def measure_loss(work: Work, rounds: int, warmup: int, threads: int, device: torch.device) -> dict[str, Any]:
    """Seconds, memory and error of each way to the same loss and gradients.

    Args:
        work: the sizes.
        rounds: how many count.
        warmup: how many come first.
        threads: CPU threads.
        device: where it runs.

    Returns:
        For each arm its seconds; `bytes`, the most it holds at once beyond its inputs and the two gradients, which all arms
        leave behind, also as `share_of_logits`, of what the logits alone take in float32; `errors` of loss and gradients,
        relative to float64. The ratios are to whole logits.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, work.tokens, work.d_model, generator=generator)
    matrix = torch.randn(work.vocab_size, work.d_model, generator=generator) * work.d_model**-0.5
    targets = torch.randint(work.vocab_size, (1, work.tokens), generator=generator)
    inputs = features.to(device), matrix.to(device), targets.to(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact = gradients(whole, inputs[0].double(), inputs[1].double(), inputs[2], nullcontext())
        calls = {name: partial(gradients, loss, *inputs, context(work, device)) for name, loss in losses().items()}
        told = {name: {"errors": errors(call(), exact)} | memory(call, work, device) for name, call in calls.items()}
        seconds = time_rounds(calls, rounds, warmup, device)
    finally:
        torch.set_num_threads(before)
    return {
        **machine(device, threads, rounds),
        "work": asdict(work),
        "arms": {name: {**told[name], "seconds": times, "median": median(times)} for name, times in seconds.items()},
        "ratios": {name: ratio(times, seconds[WHOLE]) for name, times in seconds.items() if name != WHOLE},
    }


def context(work: Work, device: torch.device) -> AbstractContextManager[Any]:
    """What the forward pass runs in; it can be entered again and again."""
    return torch.autocast(device.type, torch.bfloat16) if work.precision == "bf16-mixed" else nullcontext()


def gradients(
    loss: Loss, features: Tensor, matrix: Tensor, targets: Tensor, forward: AbstractContextManager[Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients by features and matrix."""
    leaves = features.detach().requires_grad_(), matrix.detach().requires_grad_()
    with forward:
        value = loss(*leaves, targets)
    value.backward()
    return value.detach(), *(leaf.grad for leaf in leaves)  # type: ignore[return-value]


def memory(call: Callable[[], object], work: Work, device: torch.device) -> dict[str, float]:
    """What `measure_loss` says of memory."""
    results = 4 * work.d_model * (work.tokens + work.vocab_size)
    beyond = peak_growth(device, call) - results
    return {"bytes": beyond, "share_of_logits": beyond / (4 * work.tokens * work.vocab_size)}


def errors(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> Mapping[str, float]:
    """How far each is from what it should be, over its size."""
    names = ("loss", "features", "matrix")
    return {
        name: float((one.double() - other).norm() / other.norm()) for name, one, other in zip(names, found, exact, strict=True)
    }
