"""Runs as jobs of a SLURM cluster: arrays of them, which are requeued at their time's end and go on from their checkpoints.

The jobs are the cluster's: they go on when the process that submitted them ends, however that comes, and the same command
finds them again.
"""

import copy
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from math import ceil
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.cluster_job import FOLDER, ClusterJob
from ngpt_lab.sweep.executor import Executor, Job
from ngpt_lab.sweep.records import read_object
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.sbatch_options import options
from ngpt_lab.sweep.sites import Demand, Site, check_positive
from ngpt_lab.sweep.slurm_queue import SlurmQueue, cancel

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

# The largest array that SLURM takes unless told otherwise.
LARGEST_ARRAY = 1000
# Seconds after which other machines see what a job wrote last.
SETTLING = 60.0
# Jobs that come to nothing are ended by `cluster_job.FRUITLESS`, not by counting the times that their time was up.
WITHOUT_END = 10**6
# Seconds that a job which is cancelled is given to end, more than SLURM gives it between SIGTERM and SIGKILL.
PATIENCE = 300
# The state of a job that has ended and whose node is not done with it.
COMPLETING = "COMPLETING"


class Slurm(Site):
    """A SLURM cluster, from one of its login nodes; the sweep's folder must be on a file system that all nodes share.

    Args:
        partition: where the jobs go; the cluster's default where it is not said.
        account: who pays.
        qos: quality of service.
        minutes: of each job; a run that takes longer saves a checkpoint and goes on in the queue.
        cpus: of each device of a run; its CPU threads.
        gpus: of a run, on each node; as many as trainer.devices where trainer.accelerator asks for GPUs.
        memory_gb: of a run, on each node.
        notice: seconds before a job's end at which its run is told to save; a step and a save must fit in.
        sbatch: further options of sbatch, such as {constraint: h100, exclusive: true}.
        setup: shell lines that come before a run on its node, such as `module load cuda`.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        minutes: int = 60,
        cpus: int = 1,
        gpus: int | None = None,
        memory_gb: float | None = None,
        notice: int = 120,
        sbatch: dict[str, bool | int | str] | None = None,
        setup: list[str] | None = None,
    ) -> None:
        for name, value in {"minutes": minutes, "cpus": cpus, "notice": notice}.items():
            if value < 1:
                raise InputError(f"executor.{name} is {value}: at least 1 is needed")
        check_positive({"memory_gb": memory_gb, "gpus": gpus or None})
        if notice >= 60 * minutes:
            raise InputError(f"executor.notice is {notice} seconds, and executor.minutes leaves no more: give less notice")
        self.partition, self.account, self.qos = partition, account, qos
        self.minutes, self.cpus, self.gpus, self.memory_gb, self.notice = minutes, cpus, gpus, memory_gb, notice
        self.sbatch, self.setup = options(sbatch or {}), setup

    def open(self, demand: Demand, claims: Claims) -> Executor:
        """See `Site`."""
        if shutil.which("sbatch") is None:
            raise InputError("--executor slurm: there is no sbatch here: start the sweep on a login node of the cluster")
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise InputError("--executor slurm needs submitit: pip install 'ngpt-lab[slurm]'") from error
        return SlurmJobs(self, demand, claims)

    def parameters(self, demand: Demand) -> dict[str, Any]:
        """What submitit is told of the jobs."""
        # One process of ours on the first node, which starts the others; lightning starts those of one node.
        spread = demand.nodes > 1
        gpus = demand.gpus if self.gpus is None else self.gpus
        asked = {
            "job_name": demand.folder.absolute().name,
            "time": self.minutes,
            "nodes": demand.nodes,
            "ntasks_per_node": demand.devices if spread else 1,
            "cpus_per_task": self.cpus if spread else self.cpus * demand.devices,
            "gpus_per_node": gpus or None,
            "mem": self.memory_gb and f"{ceil(self.memory_gb * 1024)}MB",
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "setup": self.setup,
            "array_parallelism": self.side_by_side(demand),
        }
        more = {"signal": f"B:USR2@{self.notice}", "requeue": True, **self.sbatch}
        fixed = {"use_srun": False, "stderr_to_stdout": True, "wckey": None, "additional_parameters": more}
        return {name: value for name, value in asked.items() if value is not None} | fixed

    def job(self, run: PlannedRun, demand: Demand, ticket: str) -> "SlurmBody":
        """What the job of a run does."""
        launcher: tuple[str, ...] = ()
        if demand.nodes > 1:
            launcher = ("srun", f"--nodes={demand.nodes}", f"--ntasks-per-node={demand.devices}")
            launcher += (f"--cpus-per-task={self.cpus}", "--kill-on-bad-exit=1")
        return SlurmBody(run, demand.folder, ticket, {"OMP_NUM_THREADS": str(self.cpus)}, launcher)


class SlurmBody(ClusterJob):
    """Saves and is requeued when its time is up, and saves when SLURM takes its node for another."""

    def __call__(self) -> None:
        """Carry it out."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "told", True))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as the run's processes do until they can save
        super().__call__()

    def checkpoint(self) -> "DelayedSubmission | None":
        """What submitit calls some time before the job's end: what is to be requeued; None where nothing is left to do."""
        from submitit.helpers import DelayedSubmission

        self.save_and_end()
        if self.run.finished or self.run.failed:
            return None
        again = copy.copy(self)
        again.process, again.told = None, False
        return DelayedSubmission(again)

    def environment(self) -> dict[str, str]:
        """Where the run's processes are on several nodes, they meet at this one."""
        if not self.launcher:
            return super().environment()
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        meeting = {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": str(port)}
        world = {"WORLD_SIZE": str(self.run.ranks), "LOCAL_WORLD_SIZE": str(self.run.devices)}
        return super().environment() | meeting | world | {"TORCHELASTIC_RUN_ID": os.environ["SLURM_JOB_ID"]}


class SlurmJobs(Executor):
    """Submits runs that are ready together as an array, and watches the jobs; all may be in the queue at a time."""

    slots = LARGEST_ARRAY
    pause = 5.0

    def __init__(self, site: Slurm, demand: Demand, claims: Claims) -> None:
        from submitit import SlurmExecutor

        self.site, self.demand, self.claims = site, demand, claims
        self.queue = SlurmQueue()
        # exec: our process is the job's first, which SLURM's signals are for.
        python = f"exec {shlex.quote(sys.executable)}"
        self.submitit = SlurmExecutor(demand.folder.absolute() / FOLDER / "slurm", WITHOUT_END, python=python)
        self.submitit.update_parameters(**site.parameters(demand))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Say what goes on without this process."""
        left = [job for run in self._known() if (job := str(self._job_of(run))) in self.queue.states()]
        if kind is not None and left:
            arrays = sorted({job.partition("_")[0] for job in left}, key=int)
            print(
                f"{len(left)} job(s) stay with SLURM; the same command watches them again, scancel {' '.join(arrays)} ends them"
            )

    def ticket(self, run: PlannedRun) -> str:
        """That of the job which the run has in the queue, else a new one."""
        return str(self._record(run.name)["ticket"]) if self._job_of(run.name) in self.queue.states() else token_hex(8)

    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        """See `Executor`."""
        tickets = {run: str(self.claims.ticket(run.name)) for run, _ in runs}
        fresh = [run for run, _ in runs if self._record(run.name).get("ticket") != tickets[run]]
        if fresh:
            self._submit({run: tickets[run] for run in fresh})
        return [SlurmJob(run, str(self._job_of(run.name)), self.queue, self._log(run)) for run, _ in runs]

    def _submit(self, runs: Mapping[PlannedRun, str]) -> None:
        from submitit.core.utils import FailedJobError

        comment = token_hex(8)
        self.submitit.update_parameters(comment=comment)
        told = {"comment": comment, "log": str(self.submitit.folder)}
        for place, (run, ticket) in enumerate(runs.items()):  # before: whoever is killed while sbatch answers leaves known jobs
            self._note(run, {"ticket": ticket, "place": place, **told})
        try:
            with self.submitit.batch():
                jobs = [self.submitit.submit(self.site.job(run, self.demand, ticket)) for run, ticket in runs.items()]
        except FailedJobError as error:
            said = [line for line in str(error).splitlines() if "error" in line.lower()] or str(error).splitlines()[-1:]
            raise InputError(f"sbatch refuses the jobs: {' '.join(said)}") from error
        for run, job in zip(runs, jobs, strict=True):
            self._note(run, {**self._record(run.name), "job": job.job_id, "log": str(job.paths.stdout)})
        self.queue.forget()

    def _note(self, run: PlannedRun, content: Mapping[str, Any]) -> None:
        write_atomically(self.demand.folder / FOLDER / f"{run.name}.json", json.dumps(content) + "\n")

    def _known(self) -> list[str]:
        return [file.stem for file in (self.demand.folder / FOLDER).glob("*.json")]

    def _record(self, name: str) -> dict[str, Any]:
        return read_object(self.demand.folder / FOLDER / f"{name}.json")[0]

    def _job_of(self, name: str) -> str | None:
        record = self._record(name)
        return record.get("job") or self.queue.find(record.get("comment"), record.get("place"))

    def _log(self, run: PlannedRun) -> str:
        return str(self._record(run.name).get("log"))


class SlurmJob(Job):
    """A job in the queue or on a node; whether its run is finished, the run's folder tells."""

    def __init__(self, run: PlannedRun, name: str, queue: SlurmQueue, log: str) -> None:
        self.run, self.name, self.queue, self.log = run, name, queue, log
        self._gone: float | None = None

    def ended(self) -> bool:
        """See `Job`."""
        state = self.queue.states().get(self.name)
        if state == COMPLETING and (self.run.finished or self.run.failed):
            return True  # what is left to end on its node may take hours
        if state is not None:
            self._gone = None
            return False
        self._gone = self._gone or time.monotonic()
        return self.run.finished or self.run.failed or time.monotonic() - self._gone >= SETTLING

    def error(self) -> str | None:
        """See `Job`."""
        if self.run.failed:
            return str(self.run.record().get("error"))
        if self.run.finished:
            return None
        return f"SLURM ended its job {self.name} before it was finished ({self.log}): the same command goes on with it"

    def interrupted(self) -> bool:
        """See `Job`."""
        return not self.run.finished and not self.run.failed

    def queued(self) -> bool:
        """See `Job`."""
        return self.queue.states().get(self.name) == "PENDING"

    def kill(self) -> None:
        """See `Job`."""
        cancel(self.name)
        deadline = time.monotonic() + PATIENCE  # where SLURM does not answer: the job itself sees that its run is another's
        while self.name in self.queue.states() and time.monotonic() < deadline:
            time.sleep(1)

    def leave(self) -> bool:
        """The job is the cluster's."""
        return True
