"""Where the runs of a sweep are carried out: this machine, or a cluster; what `--executor` names."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.executor import Executor


@dataclass(frozen=True)
class Demand:
    """What the runs of a sweep ask for, which is the same for all.

    Attributes:
        folder: the sweep's.
        runs: how many there are.
        accelerator: as of Trainer.
        devices: of one run, on each node.
        nodes: of one run.
        workers: how many runs go side by side; None where that is for the site to say.
    """

    folder: Path
    runs: int
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None

    @property
    def gpus(self) -> int:
        """GPUs that a run is known to need on each node."""
        return self.devices if self.accelerator in ("gpu", "cuda") else 0


class Site(ABC):
    """Where runs are carried out.

    Attributes:
        here: whether that is this machine.
    """

    here = False

    @abstractmethod
    def open(self, demand: Demand, claims: Claims) -> Executor:
        """What starts the runs there, to be used as a context.

        Raises:
            InputError: the site cannot be reached, or has not what the runs ask for.
        """

    def side_by_side(self, demand: Demand) -> int:
        """How many runs go side by side."""
        return demand.workers or demand.runs


def check_positive(settings: Mapping[str, float | None]) -> None:
    """Check settings of an executor that are amounts; None is one that was not given.

    Raises:
        InputError: one is 0, less, or no finite number.
    """
    for name, value in settings.items():
        if value is not None and not 0 < value < inf:
            raise InputError(f"executor.{name} is {value}: more than 0 is needed")


class Local(Site):
    """This machine: as many runs side by side as it has GPUs, or groups of them, else cores.

    Args:
        threads: CPU threads of one run, on which the last digits of its results depend; by default an equal share of the cores.
    """

    here = True

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"executor.threads is {threads}: at least 1 is needed")
        self.threads = threads

    def open(self, demand: Demand, claims: Claims) -> Executor:
        """See `Site`."""
        from ngpt_lab.sweep.pool import LocalPool

        if demand.nodes > 1:
            raise InputError(
                f"trainer.num_nodes is {demand.nodes}, and this is one machine: name a cluster, as with --executor slurm"
            )
        return LocalPool(self.side_by_side(demand), demand.accelerator, demand.devices, self.threads)

    def side_by_side(self, demand: Demand) -> int:
        """See `Site`."""
        from ngpt_lab.sweep.pool import default_workers

        return demand.workers or default_workers(demand.runs, demand.accelerator, demand.devices)
