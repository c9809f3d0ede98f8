"""Runs as tasks of a Ray cluster; one whose node dies is started again on another and goes on from its checkpoint.

The tasks are this process's, as Ray has it: they end with it.
"""

from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.cluster_job import ClusterJob
from ngpt_lab.sweep.executor import Executor, Job
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.sites import Demand, Site, check_positive

if TYPE_CHECKING:
    from ray import ObjectRef

# Tasks that wait take no room, but Ray keeps all of them in memory.
MOST_TASKS = 1000
# Seconds that a task is given to end.
PATIENCE = 60
# What Ray calls what a run asks for, and our settings.
SETTINGS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_gb"}
RAYS_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


class Ray(Site):
    """A Ray cluster; the sweep's folder must be on a file system that all nodes share, the package installed on each.

    Args:
        address: the cluster's, as host:6379, or auto for the one that was started on this machine; without one a cluster of
            this machine alone is started, and ended.
        cpus: of each device of a run; its CPU threads.
        gpus: of a run; as many as trainer.devices where trainer.accelerator asks for GPUs.
        memory_gb: of a run.
        resources: of a run that the cluster's nodes name, such as {h100: 1}.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        memory_gb: float | None = None,
        resources: dict[str, float] | None = None,
    ) -> None:
        if cpus < 1:
            raise InputError(f"executor.cpus is {cpus}: at least 1 is needed")
        amounts = {"gpus": gpus or None, **{f"resources.{name}": amount for name, amount in (resources or {}).items()}}
        check_positive({"memory_gb": memory_gb, **amounts})
        for name, amount in amounts.items():
            if amount is not None and amount > 1 and amount != int(amount):
                raise InputError(f"executor.{name} is {amount}: Ray shares out parts of one, but no parts of several")
        self.address, self.cpus, self.gpus, self.memory_gb = address, cpus, gpus, memory_gb
        self.resources = resources or {}

    def open(self, demand: Demand, claims: Claims) -> Executor:
        """See `Site`."""
        if demand.nodes > 1:
            raise InputError(f"trainer.num_nodes is {demand.nodes}, and a task of Ray has one: take --executor slurm")
        try:
            import ray
        except ImportError as error:
            raise InputError("--executor ray needs Ray: pip install 'ngpt-lab[ray]'") from error
        local = {"include_dashboard": False} if self.address is None else {}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level="ERROR", **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            told = " ".join(str(error).split())
            raise InputError(f"executor.address {self.address}: there is no Ray cluster that answers ({told[:200]})") from error
        try:
            check_room(self.asked(demand), [node["Resources"] for node in ray.nodes() if node["Alive"]])
            return RayTasks(self, demand, claims)
        except InputError:
            ray.shutdown()
            raise

    def asked(self, demand: Demand) -> dict[str, Any]:
        """What Ray is told a run needs."""
        wanted = {
            "num_cpus": self.cpus * demand.devices,
            "num_gpus": demand.gpus if self.gpus is None else self.gpus,
            "memory": self.memory_gb and round(self.memory_gb * 2**30),
            "resources": self.resources,
        }
        return {name: value for name, value in wanted.items() if value}


class RayTasks(Executor):
    """Hands runs to Ray, which starts each when there is room for it."""

    pause = 1.0

    def __init__(self, site: Ray, demand: Demand, claims: Claims) -> None:
        import ray

        self.site, self.demand, self.claims = site, demand, claims
        self.slots = min(site.side_by_side(demand), MOST_TASKS)
        # Without end as far as nodes that die are concerned; what fails by itself fails once.
        try:
            self.task = ray.remote(max_retries=-1, **site.asked(demand))(carry_out)
        except ValueError as error:
            raise InputError(f"Ray does not take what a run asks for: {' '.join(str(error).split())}") from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the cluster; one that was started here ends."""
        import ray

        ray.shutdown()

    def ticket(self, run: PlannedRun) -> str:
        """A new one."""
        return token_hex(8)

    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        """See `Executor`."""
        bodies = [
            ClusterJob(run, self.demand.folder, str(self.claims.ticket(run.name)), {"OMP_NUM_THREADS": str(self.site.cpus)})
            for run, _ in runs
        ]
        return [RayJob(body, self.task.remote(body)) for body in bodies]


class RayJob(Job):
    """A task; whether its run is finished, the run's folder tells."""

    def __init__(self, body: ClusterJob, task: "ObjectRef[None]") -> None:
        self.body, self.run, self.task = body, body.run, task
        self._begun = False

    def ended(self) -> bool:
        """See `Job`."""
        import ray

        return bool(ray.wait([self.task], timeout=0)[0])

    def error(self) -> str | None:
        """See `Job`."""
        import ray

        try:
            ray.get(self.task)
        except ray.exceptions.RayError as error:
            told = f"its task ended: {' '.join(str(error).split())[:400]}"
        else:
            told = "its task ended before it was finished"
        if self.run.failed:
            return str(self.run.record().get("error"))
        return None if self.run.finished else f"{told}; the same command goes on with it"

    def interrupted(self) -> bool:
        """See `Job`."""
        return not self.run.finished and not self.run.failed

    def queued(self) -> bool:
        """See `Job`."""
        self._begun = self._begun or any(start.get("ticket") == self.body.ticket for start in self.body.starts())
        return not self._begun

    def kill(self) -> None:
        """See `Job`."""
        import ray

        ray.cancel(self.task, force=True)
        ray.wait([self.task], timeout=PATIENCE)


def check_room(asked: Mapping[str, Any], nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that some node, when nothing else is on it, has what Ray is told a run needs; it would wait for ever.

    Raises:
        InputError: none has.
    """
    wanted = {RAYS_NAMES[name]: amount for name, amount in asked.items() if name in RAYS_NAMES} | asked.get("resources", {})
    for name, amount in wanted.items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if amount > most:
            raise InputError(
                f"executor.{SETTINGS.get(name, f'resources.{name}')}: a run asks for {amount:,} of {name}, and no node of the "
                f"Ray cluster has more than {most:,}: ask for less, or start the sweep when such a node is up"
            )
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        told = ", ".join(f"{name} {amount:,}" for name, amount in wanted.items())
        raise InputError(f"executor ray: no node of the Ray cluster has all that a run asks for ({told}): ask for less")


def carry_out(body: ClusterJob) -> None:
    """The task."""
    body()
