"""What holds of the trials of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def at_edge(value: object, tried: pd.Series[Any]) -> bool:
    """Whether a chosen number is the smallest or largest of several tried; a word or a switch has no edge."""
    numbers = pd.to_numeric(tried, errors="coerce").dropna()
    if numbers.nunique() < 2 or isinstance(value, bool | np.bool_):
        return False
    try:
        number = float(str(value))
    except ValueError:
        return False
    return bool(np.isclose(number, [numbers.min(), numbers.max()], rtol=1e-9, atol=0).any())
