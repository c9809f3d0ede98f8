"""How the next token is chosen from its logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ngpt_lab.errors import InputError

NEVER = float("-inf")
# Below it, logits over it are no float32 any more.
COLDEST = 1e-20


class Sampler(ABC):
    """Chooses a token for each row of a batch."""

    @abstractmethod
    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) to ids (B,)."""


class Greedy(Sampler):
    """The likeliest."""

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Sampler`."""
        return logits.argmax(dim=-1)


@dataclass(frozen=True)
class Sampling(Sampler):
    """Drawn from the softmax of the logits, after four filters in this order, each on what the one before has left.

    Args:
        temperature: what the logits are divided by.
        top_k: how many of the likeliest can be drawn; more where the last of them are equal.
        top_p: the likeliest can be drawn, as few as together have this probability.
        min_p: tokens can be drawn that have at least this share of the likeliest one's probability.
        generator: the random numbers; by default torch's own.

    Raises:
        InputError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not COLDEST <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}: it must be at least {COLDEST:g} and finite")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}: it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if not 0 <= self.min_p < 1:
            raise InputError(f"min_p is {self.min_p}: it must be at least 0 and below 1")

    def __call__(self, logits: Tensor) -> Tensor:
        """See `Sampler`."""
        # What has no numbers is drawn from too, for whoever looks at the logits to tell of it.
        probability = self.filtered(logits).softmax(dim=-1).nan_to_num(nan=1.0)
        return torch.multinomial(probability, 1, generator=self.generator)[:, 0]

    def filtered(self, logits: Tensor) -> Tensor:
        """The logits (B, V) in float32 over the temperature; -inf where a token cannot be drawn."""
        logits = logits.float() / self.temperature
        if self.top_k is not None:
            logits = likeliest(logits, self.top_k)
        if self.top_p < 1:
            logits = nucleus(logits, self.top_p)
        return least(logits, self.min_p) if self.min_p else logits


def likeliest(logits: Tensor, k: int) -> Tensor:
    """The logits that are not below the k-th largest (arXiv 1805.04833)."""
    bound = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < bound, NEVER)


def nucleus(logits: Tensor, p: float) -> Tensor:
    """The largest logits, as few as have the probability p together, and at least one (arXiv 1904.09751)."""
    ordered, where = logits.sort(dim=-1)
    rest = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    rest[..., -1] = False
    return logits.masked_fill(rest.scatter(-1, where, rest), NEVER)


def least(logits: Tensor, p: float) -> Tensor:
    """The logits whose probability is at least p times the largest (arXiv 2407.01082)."""
    probability = logits.softmax(dim=-1)
    return logits.masked_fill(probability < p * probability.amax(dim=-1, keepdim=True), NEVER)
