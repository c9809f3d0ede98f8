"""Forgetting and relearning in a finished sweep, the arms paired by seed.

python experiments/plasticity/read.py [runs/plasticity]
"""

import sys
from itertools import combinations
from pathlib import Path

import pandas as pd

from ngpt_lab.analysis.plasticity import plasticity
from ngpt_lab.analysis.runs import RECORD, load_run, sweep_labels
from ngpt_lab.analysis.statistics import paired_interval
from ngpt_lab.errors import InputError

MEASURES = ("forgetting", "tokens_to_relearn", "first", "second")


def read(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the final runs, and why any others have none."""
    rows, left_out = [], []
    for place in sorted(record.parent for record in folder.glob(f"runs/*/{RECORD}")):
        try:
            run = load_run(place)
            if sweep_labels(run.record).get("stage") == "final":
                rows.append(plasticity([run]))
        except InputError as error:
            left_out.append(str(error))
    if not rows:
        raise InputError(f"{folder} has no final run to read: {left_out[0] if left_out else 'give the folder of the sweep'}")
    frame = pd.concat(rows, ignore_index=True)
    if frame.duplicated(["arm", "seed"]).any():
        raise InputError(f"{folder} has several runs of an arm with one seed: give a sweep of one condition and budget")
    return frame, left_out


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
    frame, left_out = read(folder)
    print(frame.to_string(index=False))
    for measure in MEASURES:
        print(*compared(frame, measure), sep="\n")
    for reason in left_out:
        print(f"left out: {reason}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/plasticity"))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
