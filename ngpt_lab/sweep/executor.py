"""Carries out runs, never one twice, on whatever starts them: the processes of this machine, or a cluster's jobs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from ngpt_lab.analysis.states import misses_steps, problem_of, state_of
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.claims import Claims, NoClaims
from ngpt_lab.sweep.display import Display
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.train import record_failure

Failed = list[tuple[PlannedRun, str]]


class Job(ABC):
    """A run that was started."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""

    @abstractmethod
    def error(self) -> str | None:
        """What went wrong, once it has ended; None where nothing did."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; returns when nothing of it runs any more."""

    def interrupted(self) -> bool:
        """Whether what went wrong is no fault of the run's, which can be gone on with."""
        return False

    def queued(self) -> bool:
        """Whether it waits for its turn."""
        return False

    def leave(self) -> bool:
        """The worker ends: end with it, or go on without it; whether it goes on."""
        self.kill()
        return False


class Executor(ABC):
    """Starts runs, each in one of its slots; as a context, what it started ends with it or goes on without it.

    Attributes:
        slots: how many runs it takes at a time; slot numbers are 0 to `slots` - 1.
        pause: seconds between two looks at what is running.
    """

    slots: int
    pause = 0.2

    @abstractmethod
    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        """Start `ngpt_lab.sweep.train.train(run)` for each run, in a slot that is free."""

    def ticket(self, run: PlannedRun) -> str | None:
        """By what the run's claim is shared with the job that will train it, or does; None where the job ends with this."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:  # noqa: B027
        """Nothing is left to end."""


def serve(
    runs: Sequence[PlannedRun],
    executor: Executor,
    claims: Claims | None = None,
    retry: bool = False,
    ended: Callable[[], None] | None = None,
    pause: float | None = None,
) -> Failed:
    """See to it that every run is finished or failed; those that other workers hold are waited for.

    Args:
        runs: in the order in which they are started.
        executor: starts them.
        claims: shares the runs out among several workers; None where this is the only one.
        retry: try runs again, once, that have failed before; else they are left as they are.
        ended: called after each run that ended in this worker, well or not.
        pause: seconds between two looks at what is running; by default the executor's.

    Returns:
        The runs that failed, now or before, each with its error, in the order of `runs`.
    """
    with Display(runs) as display:
        service = Service(runs, executor, claims or NoClaims(), retry, display)
        try:
            while service.go_on(ended or (lambda: None)):
                time.sleep(executor.pause if pause is None else pause)
        except BaseException:
            service.stop()
            raise
    return [(run, service.failed[run]) for run in runs if run in service.failed]


class Service:
    """The state of `serve`."""

    def __init__(self, runs: Sequence[PlannedRun], executor: Executor, claims: Claims, retry: bool, display: Display) -> None:
        self.executor, self.claims, self.display = executor, claims, display
        self.waiting = list(runs)
        self.running: dict[int, tuple[PlannedRun, Job]] = {}
        self.failed: dict[PlannedRun, str] = {}
        # A failed run whose record has changed since was tried again by another worker, and is not tried once more.
        self.to_retry: Mapping[PlannedRun, int] = {run: written(run) for run in runs if run.failed} if retry else {}

    def go_on(self, ended: Callable[[], None]) -> bool:
        """Look after what is running, and start what there is room for; whether anything is left."""
        for slot, (run, job) in list(self.running.items()):
            if run.name in self.claims.lost() or job.ended():
                del self.running[slot]
                self._end(run, job)
                ended()
        elsewhere = self._fill()
        self.display.update([run for run, job in self.running.values() if not job.queued()], elsewhere)
        return bool(self.running or self.waiting)

    def stop(self) -> None:
        """End everything at once that does not go on without this process; what was running can be continued."""
        for run, job in self.running.values():
            if job.leave():
                self.claims.leave(run.name)
            else:
                self.claims.release(run.name)

    def _end(self, run: PlannedRun, job: Job) -> None:
        if not self.claims.holds(run.name):
            # Another worker thought this one dead and carries the run out again: what it comes to is that one's to say.
            job.kill()
            self.waiting.append(run)
        else:
            error = job.error()
            if error is None and not run.finished:
                early = "it stopped before its last step: leave out whatever ends a run early"
                error = early if misses_steps(run.record()) else problem_of(run.record())
            if error is not None and not job.interrupted():
                record_failure(run, error)
            self._settle(run, error, here=True)
        self.claims.release(run.name)

    def _fill(self) -> list[PlannedRun]:
        """Start runs while slots are free; returns those found to be other workers'."""
        free = [slot for slot in range(self.executor.slots) if slot not in self.running]
        elsewhere: list[PlannedRun] = []
        taken: list[tuple[PlannedRun, int]] = []
        for run in list(self.waiting) if free else ():
            if not free:
                break
            if self._is_settled(run):
                self.waiting.remove(run)
            elif not self.claims.take(run.name, self.executor.ticket(run)):
                elsewhere.append(run)
            elif self._is_settled(run):  # by who held it until just now
                self.waiting.remove(run)
                self.claims.release(run.name)
            else:
                self.waiting.remove(run)
                taken.append((run, free.pop(0)))
        if taken:
            self._start(taken)
        return elsewhere

    def _start(self, taken: Sequence[tuple[PlannedRun, int]]) -> None:
        """Start runs in their slots; from here on the record of one that had failed tells of this attempt."""
        failed = [run.folder / "run.json" for run, _ in taken if run.failed]
        before = {record: record.read_text() for record in failed}
        for record in failed:
            record.unlink()
        try:
            jobs = self.executor.start(taken)
        except BaseException:  # there was no attempt, as where a cluster refuses the jobs
            for record, content in before.items():
                write_atomically(record, content)
            raise
        self.running |= {slot: (run, job) for (run, slot), job in zip(taken, jobs, strict=True)}

    def _is_settled(self, run: PlannedRun) -> bool:
        record = run.record()
        state = state_of(record)
        if state == "finished":
            self._settle(run, None, here=False)
        elif state == "failed" and self.to_retry.get(run) != written(run):
            self._settle(run, str(record.get("error") or problem_of(record)), here=False)
        else:
            return False
        return True

    def _settle(self, run: PlannedRun, error: str | None, here: bool) -> None:
        if error is not None:
            self.failed[run] = error
        self.display.settled(run, error, here)


def written(run: PlannedRun) -> int:
    """When a run's record was written, in nanoseconds."""
    try:
        return (run.folder / "run.json").stat().st_mtime_ns
    except OSError:
        return 0
