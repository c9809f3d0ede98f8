"""What a sweep asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Point = Mapping[str, Any]
"""One point of a grid: dotted key of `fit` -> value."""


@dataclass(frozen=True)
class Base:
    """Config files, and the arms made of them: plain, with each ablation, at each point of the grid."""

    name: str
    configs: tuple[Path, ...]
    ablations: Mapping[str, tuple[Path, ...]]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tuning:
    """The trials that every arm gets at every budget; `by` is arm, or base where ablations take their plain base's choice."""

    seeds: tuple[int, ...]
    points: Mapping[str, tuple[Point, ...]]
    by: str


@dataclass(frozen=True)
class Spec:
    """A sweep specification.

    `budgets` are tokens, None for the length the configs give; `conditions` separate comparisons; `text` is the file's, with
    what it extends.
    """

    path: Path
    text: str
    question: str
    bases: tuple[Base, ...]
    settings: Point
    conditions: tuple[Point, ...]
    seeds: tuple[int, ...]
    budgets: tuple[int, ...] | None
    include: tuple[Mapping[str, tuple[Any, ...]], ...]
    exclude: tuple[Mapping[str, tuple[Any, ...]], ...]
    tuning: Tuning | None
    baseline: str
    metric: str
    step_cost: int
    allow_unequal: bool

    @property
    def name(self) -> str:
        """The folder's name, with the file's own where that is not sweep.yaml."""
        folder = self.path.resolve().parent.name
        return folder if self.path.stem == "sweep" else f"{folder}-{self.path.stem}"

    @property
    def largest_size(self) -> int:
        """How many runs there are before include and exclude."""
        arms = sum((1 + len(base.ablations)) * len(base.points) for base in self.bases)
        trials = (
            max((len(points) for points in self.tuning.points.values()), default=0) * len(self.tuning.seeds)
            if self.tuning
            else 0
        )
        return arms * len(self.conditions) * len(self.budgets or (0,)) * (len(self.seeds) + trials)
