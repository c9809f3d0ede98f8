"""Forgetting and relearning in a finished sweep, the arms paired by seed.

python experiments/plasticity/read.py [runs/plasticity]
"""

import sys
from itertools import combinations
from pathlib import Path

import pandas as pd

from ngpt_lab.analysis.plasticity import plasticity
from ngpt_lab.analysis.runs import Run, load_run, sweep_labels
from ngpt_lab.analysis.statistics import paired_interval

MEASURES = ("forgetting", "tokens_to_relearn", "first", "second")


def final_runs(folder: Path) -> list[Run]:
    runs = [load_run(record.parent) for record in sorted(folder.glob("runs/*/run.json"))]
    return [run for run in runs if sweep_labels(run.record).get("stage") == "final"]


def compared(frame: pd.DataFrame, measure: str) -> list[str]:
    by_arm = frame.pivot(index="seed", columns="arm", values=measure)
    told = []
    for baseline, candidate in combinations(sorted(by_arm.columns), 2):
        differences = (by_arm[candidate] - by_arm[baseline]).dropna()
        left_out = (
            f", {len(by_arm) - len(differences)} seed(s) without a value left out" if len(differences) < len(by_arm) else ""
        )
        if differences.empty:
            told.append(f"{measure}: {candidate} - {baseline}: no seed has both{left_out}")
            continue
        found = paired_interval(differences.to_list())
        told.append(
            f"{measure}: {candidate} - {baseline} = {found.mean:+.4g} +- {found.half_width:.4g} "
            f"(95%, {found.n} seeds; detectable {found.detectable:.4g}){left_out}"
        )
    return told


def main(folder: Path) -> None:
    frame = plasticity(final_runs(folder))
    print(frame.to_string(index=False))
    for measure in MEASURES:
        print(*compared(frame, measure), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/plasticity"))
