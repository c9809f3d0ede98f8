"""The tables that stand beside the page, as Markdown and as LaTeX."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ngpt_lab.analysis.columns import measured
from ngpt_lab.analysis.results import rows_of_runs
from ngpt_lab.analysis.runs import Run, sweep_labels
from ngpt_lab.analysis.states import problem_of
from ngpt_lab.analysis.table_text import Table, to_latex, to_markdown
from ngpt_lab.analysis.tables import all_tables, finished_losses
from ngpt_lab.files import write_atomically
from ngpt_lab.report.comparison import Comparison
from ngpt_lab.report.sources import Trial

FOLDER = "tables"
_FORMS = {".md": to_markdown, ".tex": to_latex}
_NAMES = ("ablations", "equal_loss", "finished_losses", "learned_scales", "sizes", "optimisation", "tuning", "left_out")


def write_tables(comparison: Comparison, folder: Path) -> list[str]:
    """Write every table below `folder`, drop those of an earlier report, and return their names."""
    tables = [*_tables(comparison), *_left_out(comparison)]
    for table in tables:
        for suffix, form in _FORMS.items():
            write_atomically(folder / FOLDER / f"{table.name}{suffix}", form(table))
    names = [table.name for table in tables]
    for name in set(_NAMES) - set(names):
        for suffix in _FORMS:
            (folder / FOLDER / f"{name}{suffix}").unlink(missing_ok=True)
    return names


def _tables(comparison: Comparison) -> list[Table]:
    finals = comparison.finals
    # Where no run has the measure of the claim, the tables compare by the loss that every run has.
    metric = comparison.metric if finals[comparison.metric].notna().any() else "val/loss"
    seconds = {condition.name: condition.step_seconds() for condition in comparison.conditions}
    # Where the baseline has no run there is nothing to set against it, but there are losses.
    compared = [condition.name for condition in comparison.conditions if comparison.baseline in condition.arms]
    rows = [_trial_rows(comparison), finals[finals["condition"].isin(compared)]]
    tables = all_tables(pd.concat([own for own in rows if len(own)]), comparison.baseline, metric, seconds)
    losses = finished_losses(finals)
    return [losses if table.name == losses.name else table for table in tables if table.name != "unfinished"]


def _trial_rows(comparison: Comparison) -> pd.DataFrame:
    runs = [_as_run(trial) for trial in comparison.trials]
    tried = [sweep_labels(run.record).get("trial") or {} for run in runs]
    keys = list(dict.fromkeys(key for own in tried for key in own))
    rows = rows_of_runs(runs) if runs else pd.DataFrame()
    for key in keys:
        rows[key] = [own.get(key) for own in tried]
    return rows


def _as_run(trial: Trial) -> Run:
    record = trial.record
    budget = int(record.get("budget") or record["tokens"])
    return Run(trial.folder, str(record.get("arm")), budget, record, pd.DataFrame(), problem_of(record), measured(record, []))


def _left_out(comparison: Comparison) -> list[Table]:
    shown = {
        "run": [one.name for one in comparison.unused],
        "state": [one.state for one in comparison.unused],
        "reason": [one.reason for one in comparison.unused],
    }
    table = Table("left_out", "Runs left out", "No other table counts them.", pd.DataFrame(shown))
    return [table] if comparison.unused else []
