"""Runs -> tidy frames: one row an observation, columns arm, budget, seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ngpt_lab.analysis.columns import METRICS
from ngpt_lab.analysis.equal_loss import Curve
from ngpt_lab.analysis.runs import Run
from ngpt_lab.analysis.statistics import Interval, paired_interval

MEASURES = {name: METRICS[name] for name in ("val/bits_per_byte", "test/bits_per_byte", "val/loss", "test/loss")}
"""Final metric -> split and unit."""


def final_losses(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run: arm, budget, seed, tokens and every measure, NaN where the run has none."""
    return pd.DataFrame(
        [
            {"arm": run.arm, "budget": run.budget, "seed": run.seed, "tokens": run.tokens}
            | {measure: run.final.get(measure, float("nan")) for measure in MEASURES}
            for run in runs
        ],
        columns=["arm", "budget", "seed", "tokens", *MEASURES],
    )


def paired_difference(finals: pd.DataFrame, candidate: str, baseline: str, budget: int, measure: str) -> Interval | None:
    """candidate - baseline over the seeds both have at this budget; None when they share no seed."""
    at_budget = finals[finals["budget"] == budget]
    by_arm = at_budget.pivot(index="seed", columns="arm", values=measure)
    if not {candidate, baseline} <= set(by_arm.columns):
        return None
    differences = (by_arm[candidate] - by_arm[baseline]).dropna()
    return paired_interval(differences.to_list()) if len(differences) else None


def curves(finals: pd.DataFrame, arm: str) -> Mapping[int, Curve]:
    """Seed -> tokens -> final validation loss, of finished runs."""
    found: dict[int, dict[int, float]] = {}
    rows = finals[finals["arm"] == arm]
    for seed, tokens, loss in zip(rows["seed"], rows["tokens"], rows["val/loss"], strict=True):
        found.setdefault(int(seed), {})[int(tokens)] = float(loss)
    return found


def history(runs: Sequence[Run], key: str) -> pd.DataFrame:
    """One row a logged value of one metric: arm, seed, tokens, value."""
    frames = [_values(run, key) for run in runs if key in run.metrics]
    return pd.concat(frames, ignore_index=True) if frames else _no_rows("tokens", "value")


def layer_history(runs: Sequence[Run], name: str, statistic: str = "mean_abs") -> pd.DataFrame:
    """One row a logged value of NAME/LAYER/STATISTIC: arm, seed, tokens, layer, value; layer 0 where there is none."""
    pattern = re.compile(rf"{re.escape(name)}(?:/(\d+))?/{re.escape(statistic)}")
    frames = []
    for run in runs:
        for key in run.metrics.columns:
            if match := pattern.fullmatch(key):
                frames.append(_values(run, key).assign(layer=int(match[1] or 0)))
    return pd.concat(frames, ignore_index=True) if frames else _no_rows("tokens", "value", "layer")


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The last logged value of every arm, seed and layer."""
    return rows.sort_values("tokens").groupby(["arm", "seed", "layer"], as_index=False).last()


def _values(run: Run, key: str) -> pd.DataFrame:
    rows = run.metrics[["tokens", key]].rename(columns={key: "value"})
    # A row of a step that diverged holds null.
    values = pd.to_numeric(rows["value"])
    rows = rows.assign(value=values)[np.isfinite(values)]
    return rows.assign(arm=run.arm, seed=run.seed)


def _no_rows(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=["arm", "seed", *columns])
