"""What a search left: the rows of tuning.csv, and trials that ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ngpt_lab.errors import InputError


def read_searched(path: Path) -> pd.DataFrame | None:
    """The rows of a search; None where there are none."""
    if not path.exists():
        return None
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}): restore it or remove it.") from error


def ended(record: Mapping[str, Any]) -> bool:
    """Whether a trial came to its end, or to a loss that is not finite, which is a result too."""
    return record["status"] == "finished" or "not finite" in str(record.get("error"))
