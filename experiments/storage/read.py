"""What storing weights in bfloat16 costs each arm of a finished sweep, and whether it costs one more than the other.

python experiments/storage/read.py [runs/storage]
"""

import sys
from itertools import combinations
from pathlib import Path

import pandas as pd

from ngpt_lab.analysis.results import read_results
from ngpt_lab.analysis.statistics import Interval, paired_interval

METRIC = "test/bits_per_byte"
STORED, MASTER = "bf16-true", "bf16-mixed"


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Seed by arm: the metric with weights stored in bfloat16 less that with float32 weights."""
    rows = rows[(rows["stage"] == "final") & (rows["status"] == "finished")]
    stored, master = (
        rows[rows["condition"] == f"precision={precision}"].pivot(index="seed", columns="arm", values=METRIC)
        for precision in (STORED, MASTER)
    )
    return stored - master


def told(name: str, found: Interval) -> str:
    return f"{name}: {found.mean:+.4f} +- {found.half_width:.4f} (95%, {found.n} seeds; detectable {found.detectable:.4f})"


def main(folder: Path) -> None:
    cost = costs(read_results(folder / "results.csv"))
    print(f"{METRIC}, {STORED} - {MASTER}, paired by seed")
    for arm in cost:
        print(told(arm, paired_interval(cost[arm].dropna().to_list())))
    for one, other in combinations(cost, 2):
        print(told(f"{one} less {other}", paired_interval((cost[one] - cost[other]).dropna().to_list())))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/storage"))
