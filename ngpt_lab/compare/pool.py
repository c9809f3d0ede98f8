"""Runs the planned runs in a bounded pool of processes, with one progress display."""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngpt_lab.compare.plan import PlannedRun
from ngpt_lab.errors import InputError


def train(run: PlannedRun) -> None:
    """Carry out one run, in a process of the pool; what an unfinished attempt left is done again."""
    from ngpt_lab.training.cli import CLI  # the pool's process loads it once

    if run.folder.exists():
        shutil.rmtree(run.folder)
    with quiet():  # the display of all runs speaks for each
        CLI(["fit", *run.arguments], final_splits=("val", "test"), extra={"arm": run.arm, "budget": run.budget})


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
        InputError: runs failed; the others are finished first.
    """
    left = [run for run in runs if not run.finished]
    if not left:
        return
    steps = {run: run.budget // tokens_per_step for run in left}
    context = get_context("spawn")
    with environment({"OMP_NUM_THREADS": "1"}), ProcessPoolExecutor(workers, context) as pool, display(len(left)) as show:
        futures = {pool.submit(train, run): run for run in left}
        try:
            follow(futures, steps, show)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    failed = [(run, future.exception()) for future, run in futures.items() if future.exception()]
    if failed:
        run, error = failed[0]
        raise InputError(
            f"{len(failed)} of {len(left)} runs failed; the first, {run.folder}, with {type(error).__name__}: {error}"
        )


@contextmanager
def display(count: int) -> Iterator[Any]:
    """A bar over the optimizer steps of all runs; yields a function of (steps done, steps in all, runs done)."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TextColumn("{task.fields[runs]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("", total=None, runs="")

        def show(done: int, total: int, runs: int) -> None:
            progress.update(bar, completed=done, total=total, runs=f"{runs}/{count} runs")

        yield show


def follow(futures: Mapping[Future[None], PlannedRun], steps: Mapping[PlannedRun, int], show: Any) -> None:
    """Show how far all runs are until they end."""
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=0.5)
        done = sum(min(latest_step(run.folder / "metrics.jsonl"), steps[run]) for run in futures.values())
        show(done, sum(steps.values()), len(futures) - len(pending))


def latest_step(metrics: Path) -> int:
    """The step of the last whole row of a metrics file that may be growing; 0 where there is none."""
    try:
        lines = metrics.read_text().splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError):
        return 0
