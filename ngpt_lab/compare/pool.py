"""Runs the planned runs in a bounded pool of processes, with one progress display."""

import json
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngpt_lab.compare.plan import PlannedRun
from ngpt_lab.errors import InputError

# What Windows can wait for at once.
MOST_WORKERS = 61


class FailedRunsError(InputError):
    """Some runs failed, and all others are finished."""


def train(run: PlannedRun) -> None:
    """Carry out one run, in a process of the pool; what an unfinished attempt left is done again.

    Raises:
        InputError: the run did not come to its end.
    """
    from ngpt_lab.training.cli import CLI  # the pool's process loads it once

    if run.folder.exists():
        shutil.rmtree(run.folder)
    try:
        with quiet():  # the display of all runs speaks for each
            CLI(["fit", *run.arguments], final_splits=("val", "test"), extra={"arm": run.arm, "budget": run.budget})
    except (KeyboardInterrupt, SystemExit):
        os._exit(1)  # told to end, the process takes on no other run
    if not run.finished:
        raise InputError("it stopped before its last step: leave out whatever ends a run early")


@contextmanager
def quiet() -> Iterator[None]:
    """No word from lightning but warnings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def train_all(runs: Sequence[PlannedRun], tokens_per_step: int, workers: int) -> None:
    """Train every run that is not finished, `workers` at a time.

    Each process has one CPU thread: two runs side by side use two cores better than one run on both.

    Raises:
        FailedRunsError: runs failed; the others are finished first.
        InputError: a process died; nothing is trained after that.
    """
    left = [run for run in runs if not run.finished]
    if not left:
        return
    with environment({"OMP_NUM_THREADS": "1"}), processes(workers) as pool, display(left, tokens_per_step) as show:
        failed = feed(pool, left, workers, show)
    if failed:
        run, error = failed[0]
        raise FailedRunsError(
            f"{len(failed)} of {len(left)} runs failed; the first, {run.folder}, with {type(error).__name__}: {error}"
        )


def feed(
    pool: ProcessPoolExecutor, runs: Sequence[PlannedRun], workers: int, show: Callable[[int], None]
) -> list[tuple[PlannedRun, BaseException]]:
    """Hand out runs, never more than `workers` at a time so that none waits in the pool; returns the failed, in order.

    Raises:
        InputError: a process died.
    """
    waiting, training, failed = deque(runs), dict[Future[None], PlannedRun](), dict[PlannedRun, BaseException]()
    try:
        while waiting or training:
            while waiting and len(training) < workers:
                run = waiting.popleft()
                with undisturbed():
                    training[pool.submit(train, run)] = run
            ended, _ = wait(training, timeout=0.5, return_when=FIRST_COMPLETED)
            errors = {future: error for future in ended if (error := future.exception())}
            if broken := next((error for error in errors.values() if isinstance(error, BrokenProcessPool)), None):
                raise broken
            failed |= {training[future]: error for future, error in errors.items()}
            training = {future: run for future, run in training.items() if future not in ended}
            show(len(runs) - len(waiting) - len(training))
    except BrokenProcessPool as error:
        names = ", ".join(str(run.folder) for run in training.values())
        raise InputError(
            f"a process that trained one of {names} was killed (out of memory?), and all were stopped: "
            "the same command goes on with what is missing"
        ) from error
    # Not in the order in which they failed, which differs from one time to the next.
    return [(run, failed[run]) for run in runs if run in failed]


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end at once, whatever they do, when what is within ends with an error or Ctrl-C."""
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=obey_parent)
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.kill()  # lightning puts off a SIGTERM
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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


def obey_parent() -> None:
    """Prepare a process of the pool: it leaves Ctrl-C to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the parent's end, then end at once."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def default_workers(runs: int, accelerator: str) -> int:
    """How many runs go side by side: one on a GPU, else one for each core that this process may use."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, runs, MOST_WORKERS)


@contextmanager
def display(runs: Sequence[PlannedRun], tokens_per_step: int) -> Iterator[Callable[[int], None]]:
    """A bar over the optimizer steps of all runs; yields what brings it up to date, given how many runs ended."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TextColumn("{task.fields[runs]}"),
    )
    steps = {run: run.budget // tokens_per_step for run in runs}
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=sum(steps.values()), runs="")

        def show(ended: int) -> None:
            done = sum(min(latest_step(run.folder / "metrics.jsonl"), most) for run, most in steps.items())
            progress.update(bar, completed=done, runs=f"{ended}/{len(runs)} runs")

        yield show


def latest_step(metrics: Path) -> int:
    """The step of the last whole row of a metrics file that may be growing; 0 where there is none."""
    try:
        lines = metrics.read_text().splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError):
        return 0
