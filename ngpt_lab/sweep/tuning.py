"""The choice of each arm's settings among its trials."""

import json
from collections.abc import Mapping, Sequence
from math import inf
from statistics import fmean

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.cells import Cell
from ngpt_lab.sweep.plan import Sweep, SweepRun
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.spec import Point

CHOICES = "choices.json"


def choose(sweep: Sweep) -> dict[SweepRun, Point]:
    """The settings of every final run: those of the trial with the lowest validation loss, a mean over the tuning's seeds.

    A trial that failed counts as infinitely bad. Without tuning the settings are the arms' own. A final run whose trials
    all failed, or are not all done, is left out. What was chosen is written to choices.json.
    """
    if sweep.spec.tuning is None:
        return {run: {} for run in sweep.finals}
    losses = {run: _loss(sweep.planned(run, {})) for run in sweep.trials}
    chosen: dict[SweepRun, Point] = {}
    for run in sweep.finals:
        own = [trial for trial in sweep.trials if trial.budget == run.budget and _is_tried_for(sweep, trial.cell, run.cell)]
        if all(losses[trial] is not None for trial in own):
            best, loss = _best(own, losses)
            if loss < inf:
                chosen[run] = best
    rows = [{"name": run.name, "chosen": dict(point)} for run, point in chosen.items()]
    write_atomically(sweep.folder / CHOICES, json.dumps(rows, indent=1) + "\n")
    return chosen


def without_choice(sweep: Sweep, chosen: Mapping[SweepRun, Point]) -> InputError | None:
    """The error that tells of final runs for which no trial came to its end; None where there are none."""
    left = [run for run in sweep.finals if run not in chosen]
    if not left:
        return None
    return InputError(
        f"every trial of {left[0].cell.arm} at {left[0].budget:,} tokens failed or is missing, so {len(left)} run(s) were not "
        "trained: see ngpt-lab status --failed, change the tuning's grid, or try again with --retry"
    )


def _is_tried_for(sweep: Sweep, tried: Cell, cell: Cell) -> bool:
    assert sweep.spec.tuning is not None
    return tried is cell or (sweep.spec.tuning.by == "base" and tried.tuned_as == cell.tuned_as)


def _best(trials: Sequence[SweepRun], losses: Mapping[SweepRun, float | None]) -> tuple[Point, float]:
    means: dict[str, tuple[Point, list[float]]] = {}
    for trial in trials:
        means.setdefault(json.dumps(dict(trial.trial), sort_keys=True), (trial.trial, []))[1].append(losses[trial] or 0.0)
    return min(((point, fmean(values)) for point, values in means.values()), key=lambda one: one[1], default=({}, inf))


def _loss(run: PlannedRun) -> float | None:
    """The final validation loss; infinite for a failed run, None for one that is not done."""
    if run.failed:
        return inf
    if not run.finished:
        return None
    loss = run.record().get("final", {}).get("val/loss")
    return inf if loss is None else float(loss)
