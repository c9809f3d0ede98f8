"""What is seen of a sweep while it runs: how far it is, and a line for each run in training."""

import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ngpt_lab.analysis.wording import duration
from ngpt_lab.sweep.records import METRICS, newest_row
from ngpt_lab.sweep.run import PlannedRun


class Display:
    """A bar over the steps of all runs, and one for each that is running; without a terminal, a line when a run ends.

    Args:
        runs: all of them.
        console: where to.
    """

    def __init__(self, runs: Sequence[PlannedRun], console: Console | None = None) -> None:
        self.console = console or Console()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TextColumn("{task.fields[told]}", markup=False),
        )
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.left = {run: run.steps for run in runs}
        self.runs, self.finished, self.failed = len(runs), 0, 0
        self.steps = sum(self.left.values())
        self.all = self.progress.add_task("all", total=self.steps, told="")
        self.lines: dict[PlannedRun, TaskID] = {}
        self.first: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.lines.values():
            self.progress.remove_task(line)
        self.progress.stop()

    def update(self, running: Sequence[PlannedRun], elsewhere: Sequence[PlannedRun]) -> None:
        """Show what is running."""
        if self.progress.disable:
            return
        for run in self.lines.keys() - set(running):
            self.progress.remove_task(self.lines.pop(run))
        for run in running:
            if run not in self.lines:
                self.lines[run] = self.progress.add_task(run.name, total=run.steps, told="starts")
        latest = {run: newest_row(run.folder / METRICS) for run in (*running, *elsewhere) if run in self.left}
        for run in running:
            step = latest[run].get("step", 0)
            self.progress.update(self.lines[run], completed=step, told=told(latest[run], run.steps))
        done = self.steps - sum(self.left.values()) + sum(row.get("step", 0) for row in latest.values())
        self.progress.update(self.all, completed=done, told=self.counts(len(elsewhere)) + self._time_left(done))

    def settled(self, run: PlannedRun, error: str | None, here: bool) -> None:
        """Count a run that is finished or failed, and say so where that is new."""
        self.left.pop(run, None)
        self.finished, self.failed = self.finished + (error is None), self.failed + (error is not None)
        if here and (error is not None or self.progress.disable):
            end = "finished" if error is None else f"failed: {error}"
            self.console.print(f"{run.name} {end} ({self.counts()})", markup=False, highlight=False, soft_wrap=True)

    def counts(self, elsewhere: int = 0) -> str:
        """How many runs have ended."""
        failed = f", {self.failed} failed" if self.failed else ""
        others = f", {elsewhere} at other workers" if elsewhere else ""
        return f"{self.finished}/{self.runs} runs finished{failed}{others}"

    def _time_left(self, done: int) -> str:
        """At the pace since the first look, before which whatever was done took other time."""
        now = time.monotonic()
        since, before = self.first = self.first or (now, done)
        if done <= before:
            return ""
        return f", {duration((now - since) / (done - before) * (self.steps - done))} left"


def told(row: dict[str, Any], steps: int) -> str:
    """A run's loss, and the time it still takes."""
    if "train/loss" not in row:
        return "starts"
    loss = row["train/loss"]
    left = duration(row["time"] / max(row["step"], 1) * (steps - row["step"]))
    return f"loss {'not finite' if loss is None else f'{loss:.4f}'}, {left} left"
