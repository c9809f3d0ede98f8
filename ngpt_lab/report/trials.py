"""The rows of a search: arm, seed, budget, lr, val_loss and a column for each dotted key that was tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.analysis.runs import sweep_labels
from ngpt_lab.errors import InputError


def read_searched(path: Path) -> pd.DataFrame | None:
    """The rows of a search; None where there are none."""
    if not path.exists():
        return None
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}): restore it or remove it.") from error


def trial_rows(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame | None:
    """A search's rows from its trials' own records: arm, base, seed, budget, lr, val_loss and the dotted keys tried.

    A trial whose loss is not finite has an empty val_loss.
    """
    rows = [_trial_row(record) for record in records]
    return pd.DataFrame(rows) if rows else None


def ended(record: Mapping[str, Any]) -> bool:
    """Whether a trial came to its end, or to a loss that is not finite, which is a result too."""
    return record["status"] == "finished" or "not finite" in str(record.get("error"))


def _trial_row(record: Mapping[str, Any]) -> dict[str, Any]:
    labels = sweep_labels(record)
    tried = {**(labels.get("condition") or {}), **(labels.get("trial") or {})}
    rates = [value for key, value in record["settings"].items() if key.rpartition(".")[2] == "lr"]
    return {
        "arm": record.get("arm"),
        "base": labels.get("base"),
        "seed": record["seed"],
        "budget": record.get("budget") or record["tokens"],
        "lr": next((value for key, value in tried.items() if key.rpartition(".")[2] == "lr"), next(iter(rates), None)),
        "val_loss": (record.get("final") or {}).get("val/loss"),
        # A list can stand in a cell only as text, as it does in a CSV file.
        **{key: str(value) if isinstance(value, list | dict) else value for key, value in tried.items()},
    }
