"""How far training turns the matrices."""

from __future__ import annotations

import pandas as pd

from ngpt_lab.analysis.geometry import place
from ngpt_lab.analysis.runs import Run

COLUMNS = ["matrix", "kind", "layer", "step", "tokens", "angle", "total"]
_PREFIX = "sphere/angle/"


def angle_turned(run: Run) -> pd.DataFrame:
    """The mean angle, in degrees, that each matrix's vectors turned: matrix, kind, layer, step, tokens, angle, total.

    `angle` is since the row before (or the step that the run started at), `total` the sum so far: the length of the
    path, of which the way back counts too. Runs off the sphere log none and give no rows.
    """
    frames = [_turned(run.metrics, key.removeprefix(_PREFIX)) for key in run.metrics.columns if key.startswith(_PREFIX)]
    return pd.concat(frames, ignore_index=True)[COLUMNS] if frames else pd.DataFrame(columns=COLUMNS)


def _turned(metrics: pd.DataFrame, matrix: str) -> pd.DataFrame:
    rows = metrics[["step", "tokens", _PREFIX + matrix]].set_axis(["step", "tokens", "angle"], axis=1)
    # Rows of validation have none, and a row of a step that diverged holds null.
    rows = rows.assign(angle=pd.to_numeric(rows["angle"])).dropna()
    kinds, layer = place(matrix)
    return rows.assign(matrix=matrix, kind="+".join(kinds), layer=layer, total=rows["angle"].cumsum())
