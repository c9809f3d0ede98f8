"""The choice of each arm's settings among its trials."""

import json
from collections.abc import Mapping, Sequence
from math import inf
from statistics import fmean

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.plan import Sweep, SweepRun
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.spec import Point


def choose(sweep: Sweep) -> dict[SweepRun, Point]:
    """The settings of every final run: those of the trial with the lowest validation loss, a mean over the tuning's seeds.

    A trial that failed counts as infinitely bad. Without tuning the settings are the arms' own. A final run whose trials
    all failed, or are not all done, is left out. What was chosen stands: once a final run has begun with some settings, the
    others that share its trials have the same, also when a trial that failed is tried again and turns out better.
    """
    if sweep.spec.tuning is None:
        return {run: {} for run in sweep.finals}
    losses = {trial: _loss(sweep.planned(trial, {})) for trial in sweep.trials}
    tried = {run: tuple(trial for trial in sweep.trials if is_tried_for(sweep, trial, run)) for run in sweep.finals}
    begun = {tried[run]: point for run in sweep.finals if (point := _begun_with(sweep.planned(run, {}))) is not None}
    chosen: dict[SweepRun, Point] = {}
    for run, own in tried.items():
        if own in begun:
            chosen[run] = begun[own]
        elif all(losses[trial] is not None for trial in own):
            best, loss = _best(own, losses)
            if loss < inf:
                chosen[run] = best
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


def is_tried_for(sweep: Sweep, trial: SweepRun, run: SweepRun) -> bool:
    """Whether a final run takes its settings from among some trials that this is one of."""
    if sweep.spec.tuning is None or trial.budget != run.budget:
        return False
    shared = sweep.spec.tuning.by == "base" and trial.cell.tuned_as == run.cell.tuned_as
    return trial.cell is run.cell or shared


def _begun_with(run: PlannedRun) -> Point | None:
    """The settings that a final run was given when it began; None where it has not."""
    told = run.record().get("sweep")
    chosen = told.get("chosen") if isinstance(told, dict) else None
    return chosen if isinstance(chosen, dict) else None


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
