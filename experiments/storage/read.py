"""What storing weights in bfloat16 costs each arm of a finished sweep, and whether it costs one more than the other.

python experiments/storage/read.py [runs/storage]
"""

import sys
from itertools import combinations
from pathlib import Path

import pandas as pd

from ngpt_lab.analysis.results import final_rows, read_results
from ngpt_lab.analysis.statistics import paired_interval
from ngpt_lab.errors import InputError

METRIC = "test/bits_per_byte"
STORED, MASTER = "bf16-true", "bf16-mixed"


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Seed by arm: the metric with weights stored in bfloat16 less that with float32 weights."""
    rows = final_rows(rows)
    if rows.duplicated(["arm", "condition", "seed"]).any():
        raise InputError("the results have several runs of an arm with one seed: give a sweep of one budget")
    stored, master = (
        rows[rows["condition"] == f"precision={precision}"].pivot(index="seed", columns="arm", values=METRIC)
        for precision in (STORED, MASTER)
    )
    return stored - master


def told(name: str, differences: "pd.Series[float]") -> str:
    pairs = differences.dropna()
    if pairs.empty:
        return f"{name}: no seed finished what is compared"
    found = paired_interval(pairs.to_list())
    return f"{name}: {found.mean:+.4f} +- {found.half_width:.4f} (95%, {found.n} seeds; detectable {found.detectable:.4f})"


def main(folder: Path) -> None:
    rows = read_results(folder / "results.csv")
    cost = costs(rows)
    if cost.empty:
        raise InputError(f"{folder} has no finished run with {STORED} or {MASTER}: finish the sweep or give its folder")
    print(f"{METRIC}, {STORED} - {MASTER}, paired by seed")
    for arm in cost:
        print(told(arm, cost[arm]))
    for one, other in combinations(cost, 2):
        print(told(f"{one} less {other}", cost[one] - cost[other]))
    for run in rows[(rows["stage"] == "final") & (rows["status"] != "finished")].itertuples():
        print(f"left out: {run.name} is {run.status}" + (f" ({run.error})" if run.error else ""))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/storage"))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
