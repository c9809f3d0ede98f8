"""Learning rate schedules: pure functions of the step."""

import math
from abc import ABC, abstractmethod
from typing import Literal

from ngpt_lab.errors import InputError

Unit = Literal["steps", "tokens"]


class Schedule(ABC):
    """A factor on the peak learning rate: a linear warmup, then a shape of its own.

    Args:
        warmup: below 1 a share of the run, else a number of `unit`.
        length: where the shape ends, in `unit`; by default the whole run.
        unit: what `warmup` and `length` count: optimizer steps or tokens.
    """

    def __init__(self, warmup: float = 0.0, length: int | None = None, unit: Unit = "steps") -> None:
        if warmup < 0:
            raise InputError(f"schedule.warmup is {warmup}: give a share below 1, or a number of {unit}")
        self.warmup, self.length, self.unit = warmup, length, unit

    def factor(self, step: int, run_steps: int, tokens_per_step: int) -> float:
        """The factor for the optimizer step `step` (from 0) of `run_steps`."""
        per_step = tokens_per_step if self.unit == "tokens" else 1
        end = run_steps if self.length is None else self.length / per_step
        warmup = self.warmup * end if self.warmup < 1 else self.warmup / per_step
        if step < warmup:
            return (step + 1) / (math.ceil(warmup) + 1)
        return self.shape(min(1.0, (step - warmup) / max(end - warmup, 1)))

    @abstractmethod
    def shape(self, progress: float) -> float:
        """The factor at `progress`, 0 at the end of the warmup and 1 at the end of the run."""


class Cosine(Schedule):
    """Half a cosine from 1 to `final`.

    Args:
        warmup: below 1 a share of the run, else a number of `unit`.
        length: where the cosine ends, in `unit`; by default the whole run.
        unit: what `warmup` and `length` count: optimizer steps or tokens.
        final: the factor at the end.
    """

    def __init__(self, warmup: float = 0.0, length: int | None = None, unit: Unit = "steps", final: float = 0.0) -> None:
        super().__init__(warmup, length, unit)
        self.final = final

    def shape(self, progress: float) -> float:
        """See `Schedule`."""
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class Linear(Schedule):
    """A line from 1 to `final`.

    Args:
        warmup: below 1 a share of the run, else a number of `unit`.
        length: where the line ends, in `unit`; by default the whole run.
        unit: what `warmup` and `length` count: optimizer steps or tokens.
        final: the factor at the end.
    """

    def __init__(self, warmup: float = 0.0, length: int | None = None, unit: Unit = "steps", final: float = 0.0) -> None:
        super().__init__(warmup, length, unit)
        self.final = final

    def shape(self, progress: float) -> float:
        """See `Schedule`."""
        return 1 + (self.final - 1) * progress


class WarmupStableDecay(Schedule):
    """1, then over the last `decay` share of the run a line to `final` (arXiv 2404.06395).

    Args:
        warmup: below 1 a share of the run, else a number of `unit`.
        length: where the decay ends, in `unit`; by default the whole run.
        unit: what `warmup` and `length` count: optimizer steps or tokens.
        decay: share of what follows the warmup that decays.
        final: the factor at the end.
    """

    def __init__(
        self, warmup: float = 0.0, length: int | None = None, unit: Unit = "steps", decay: float = 0.2, final: float = 0.0
    ) -> None:
        super().__init__(warmup, length, unit)
        if not 0 < decay <= 1:
            raise InputError(f"schedule.decay is {decay}: give the share of the run that decays, above 0 and at most 1")
        self.decay, self.final = decay, final

    def shape(self, progress: float) -> float:
        """See `Schedule`."""
        into = max(0.0, progress - (1 - self.decay)) / self.decay
        return 1 + (self.final - 1) * into
