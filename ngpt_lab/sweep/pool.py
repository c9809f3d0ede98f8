"""The executor of one machine: a process for each slot, with its share of the GPUs and the CPU."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from types import FrameType

from ngpt_lab.errors import InputError
from ngpt_lab.machine import cores
from ngpt_lab.sweep import separate
from ngpt_lab.sweep.executor import Executor, Job
from ngpt_lab.sweep.lifetime import end_with
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.separate import cause_of_death, what_happened
from ngpt_lab.sweep.train import environment, prepare, train

# Seconds that a process without work is given to end.
PATIENCE = 30


class LocalPool(Executor):
    """Processes that live on from run to run; one that fails or dies is replaced.

    Args:
        workers: how many runs go side by side; `default_workers` tells how many there is room for.
        accelerator: as of Trainer; what runs on the CPU alone gets no GPU.
        devices: of one run, which are processes of its own where there is no GPU.
        threads: CPU threads of one run, on which the last digits of its results depend; by default an equal share of the cores.
    """

    def __init__(self, workers: int, accelerator: str = "auto", devices: int = 1, threads: int | None = None) -> None:
        groups = gpu_groups(accelerator, devices)
        self.slots = workers
        shared = {"OMP_NUM_THREADS": str(threads or max(1, cores() // (workers * devices)))}
        self.environments = [
            shared | ({"CUDA_VISIBLE_DEVICES": ",".join(groups[slot % len(groups)])} if groups else {})
            for slot in range(workers)
        ]
        self._workers: dict[int, Worker] = {}
        self._others = set(active_children())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for worker in self._workers.values():
            worker.connection.close()  # it ends by itself
        for process in set(active_children()) - self._others:
            process.join(PATIENCE if kind is None else 0)
            process.kill()
            process.join()

    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        """See `Executor`."""
        return [self._start(run, slot) for run, slot in runs]

    def _start(self, run: PlannedRun, slot: int) -> Job:
        worker = self._workers.get(slot)
        if worker is None or not worker.process.is_alive():
            with environment(self.environments[slot]):
                worker = self._workers[slot] = Worker()
        worker.give(run)
        return worker


class Worker(Job):
    """A process that carries out one run after another, and as a job the latest of them."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, os.getpid()))
        with undisturbed():
            self.process.start()
        theirs.close()
        self._ended = False
        self._error: str | None = None

    def give(self, run: PlannedRun) -> None:
        """Hand it the next run."""
        self._ended, self._error = False, None
        with suppress(OSError):  # a process that was killed meanwhile has ended
            self.connection.send(run)

    def ended(self) -> bool:
        """See `Job`."""
        if self._ended:
            return True
        alive = self.process.is_alive()
        try:
            if self.connection.poll():
                (self._error, sound), self._ended = self.connection.recv(), True
                if not sound:
                    self.kill()
            elif not alive:
                raise EOFError
        except (EOFError, OSError):
            self.process.join(PATIENCE)
            self.kill()
            self._ended, self._error = True, cause_of_death(self.process.exitcode)
        return self._ended

    def error(self) -> str | None:
        """See `Job`."""
        return self._error

    def kill(self) -> None:
        """See `Job`."""
        self.process.kill()  # lightning puts off a SIGTERM
        self.process.join()
        self.connection.close()


def work(connection: Connection, parent: int) -> None:
    """What a process of the pool does: carry out the runs it is sent; it answers each with the error, or None.

    The other half of the answer is whether the process is sound: after an error that nobody foresaw it may not be.
    """
    obey(parent)
    while True:
        try:
            run = connection.recv()
        except EOFError:
            return
        error, sound = None, True
        try:
            if run.ranks == 1:
                train(run)
            else:  # lightning starts the others by calling again the program it finds itself in, which here is the sweep
                error = train_apart(run)
        except BaseException as exception:
            error, sound = f"{type(exception).__name__}: {exception}", isinstance(exception, InputError)
        connection.send((error, sound))


def train_apart(run: PlannedRun) -> str | None:
    """Carry out a run in processes of its own; returns what went wrong."""
    if run.finished:
        return None
    return what_happened(run, separate.start(run, prepare(run)).wait())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C waits until the end, and never reaches processes started within: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey(parent: int) -> None:
    """Prepare a process of the pool: it leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Lightning would go on to the end of a batch, and call the run failed.
    signal.signal(signal.SIGTERM, end_now)
    end_with(parent)


def end_now(number: int, frame: FrameType | None) -> None:
    """End as a process does that knows nothing of signals."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def default_workers(runs: int, accelerator: str = "auto", devices: int = 1) -> int:
    """How many of `runs` runs go side by side: one on each group of `devices` GPUs, else cores."""
    return min(runs, len(gpu_groups(accelerator, devices)) or max(1, cores() // devices))


def gpu_groups(accelerator: str, devices: int) -> list[list[str]]:
    """The GPUs that runs of `devices` GPUs share out among them, as CUDA_VISIBLE_DEVICES names them.

    Raises:
        InputError: there are fewer GPUs than one run asks for.
    """
    gpus = visible_gpus() if accelerator in ("auto", "gpu", "cuda") else []
    if gpus and len(gpus) < devices:
        raise InputError(f"trainer.devices is {devices}, but this machine has {len(gpus)} GPUs: ask for fewer")
    return [gpus[first : first + devices] for first in range(0, len(gpus) - devices + 1, devices)]


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]
