"""The columns of results.csv, and what a run's own files say for those that are measured; without torch or pandas."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

CLAIM_METRIC = "test/bits_per_byte"
"""What is compared where nothing else is asked for."""
METRICS = {
    "train/loss": ("training", "nats per token"),
    "val/loss": ("validation", "nats per token"),
    "val/bits_per_byte": ("validation", "bits per byte"),
    "val/accuracy": ("validation", "share of tokens predicted first"),
    "test/loss": ("test", "nats per token"),
    "test/bits_per_byte": ("test", "bits per byte"),
    "test/accuracy": ("test", "share of tokens predicted first"),
}
"""Column with what a run ended at -> split and unit."""
SCALES = {
    "mean/attention_alpha": "alpha_A",
    "mean/mlp_alpha": "alpha_M",
    "mean/s_qk": "s_qk",
    "mean/s_u": "s_u",
    "mean/s_v": "s_v",
    "mean/s_z": "s_z",
}
"""Column with the mean magnitude of a learned scale at the end, over all layers -> the paper's symbol."""
STAGES = ("tune", "final")
PLANNED = ("stage", "name", "id", "base", "ablation", "arm", "condition", "budget", "seed")
COUNTS = ("tokens", "steps", "parameters", "flops_per_token")
FINAL = tuple(metric for metric in METRICS if metric != "train/loss")
"""Metrics that run.json has."""
MEASURED = (*METRICS, "clipped_share", *SCALES)
COLUMNS = (*PLANNED, "status", "error", *COUNTS, "wall_time_s", *MEASURED)
"""Every column but those of settings, which are dotted keys; an empty cell is a value that the run does not have."""

_LAST_PART = 0.9
"""The training loss is a mean over the rows after this share of the run: a single batch's loss says little."""
_LOGGED = {column: re.compile(rf"(eigen|scale)/{column.removeprefix('mean/')}(/\d+)?/mean_abs") for column in SCALES}


def finite(value: object) -> float | None:
    """The value where it is a finite number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def cell(value: object) -> str:
    """A value as text: floats exact, nothing for what is not known."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        # A lone carriage return would end the row: csv does not quote it.
        return value.replace("\r\n", "\n").replace("\r", "\n")
    return json.dumps(value)


def measured(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """`MEASURED` of a finished run by its run.json and the rows of its metrics.jsonl; None for what they do not say."""
    final = record.get("final")
    final = final if isinstance(final, Mapping) else {}
    return {
        "train/loss": _train_loss(rows, finite(record.get("tokens")) or 0),
        **{metric: finite(final.get(metric)) for metric in FINAL},
        "clipped_share": _last(rows, re.compile("train/clipped_share")),
        **{column: _last(rows, pattern) for column, pattern in _LOGGED.items()},
    }


def _train_loss(rows: Iterable[Mapping[str, Any]], tokens: float) -> float | None:
    """None, too, where a loss of the last tenth is no number."""
    last = [row for row in rows if "train/loss" in row and (finite(row.get("tokens")) or 0) > _LAST_PART * tokens]
    losses = [loss for row in last if (loss := finite(row["train/loss"])) is not None]
    return fmean(losses) if losses and len(losses) == len(last) else None


def _last(rows: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> float | None:
    """The last logged value, a mean over all keys that match."""
    for row in reversed(rows):
        values = [value for key in row if pattern.fullmatch(key) and (value := finite(row[key])) is not None]
        if values:
            return fmean(values)
    return None
