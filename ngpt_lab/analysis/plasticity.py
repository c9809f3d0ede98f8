"""What training on another text does: how much of the first is forgotten, and how soon it is relearned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import nan

import pandas as pd

from ngpt_lab.analysis.runs import Run
from ngpt_lab.errors import InputError

COLUMNS = ("arm", "seed", "first", "second", "forgetting", "tokens_to_relearn")
_SWITCH = "data.init_args.switch_every"
_ACCUMULATE = "trainer.accumulate_grad_batches"


def plasticity(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run that trained on one text, on a second and on the first again; losses in nats per token.

    Columns: arm and seed; `first`, the validation loss of the first text when training leaves it; `second`, that of the
    second text at the end of its own phase; `forgetting`, what the first text's loss gained in between;
    `tokens_to_relearn`, the tokens of the third phase until the first text's loss is back at `first`, by a straight line
    between two validations, NaN where it does not come back.

    Raises:
        InputError: a run of another kind, that is not finished, or that was not validated where the texts change.
    """
    return pd.DataFrame([_row(run) for run in runs], columns=list(COLUMNS))


def _row(run: Run) -> dict[str, object]:
    if run.problem:
        raise InputError(f"{run.folder} cannot be read for plasticity: {run.problem}")
    phase = _tokens_of_a_phase(run)
    first, second = (_losses(run, f"{split}/loss") for split in ("val", "val_other"))
    for tokens in (phase, 2 * phase):
        if tokens not in first or tokens not in second:
            raise InputError(
                f"{run.folder} was not validated at {tokens:,} tokens, where its text changes: let trainer.val_check_interval "
                "divide data.switch_every"
            )
    before, after = first[phase], first[2 * phase]
    return {
        "arm": run.arm,
        "seed": run.seed,
        "first": before,
        "second": second[2 * phase],
        "forgetting": after - before,
        "tokens_to_relearn": _tokens_until(before, {t: v for t, v in first.items() if 2 * phase <= t <= 3 * phase}),
    }


def _tokens_of_a_phase(run: Run) -> int:
    batches, accumulate = (run.settings.get(key) for key in (_SWITCH, _ACCUMULATE))
    if not batches:
        raise InputError(f"{run.folder} trained on one text alone: plasticity needs runs of SwitchingTextDataModule")
    tokens_per_step = run.record.get("tokens_per_step")
    if not tokens_per_step:
        raise InputError(f"{run.folder / 'run.json'} has no tokens_per_step: restore it or repeat the run")
    phase = int(batches) * int(tokens_per_step) // int(accumulate or 1)
    if run.tokens < 3 * phase:
        raise InputError(f"{run.folder} ended before its third phase, at {run.tokens:,} of {3 * phase:,} tokens")
    return phase


def _losses(run: Run, key: str) -> dict[int, float]:
    """Tokens -> the logged value of a metric."""
    if key not in run.metrics:
        return {}
    rows = run.metrics[["tokens", key]].dropna()
    return {int(tokens): float(value) for tokens, value in zip(rows["tokens"], rows[key], strict=True)}


def _tokens_until(level: float, losses: dict[int, float]) -> float:
    """Tokens from the first of `losses` until they are down at `level`."""
    start = min(losses)
    if losses[start] <= level:
        return 0.0
    for (here, above), (there, below) in pairwise(sorted(losses.items())):
        if below <= level:
            return here - start + (there - here) * (above - level) / (above - below)
    return nan
