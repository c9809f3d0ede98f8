"""What counts as a finished run, by its record alone; without torch or pandas."""

from collections.abc import Mapping
from typing import Any

from ngpt_lab.analysis.columns import finite

STATES = ("finished", "failed", "running", "interrupted", "waiting", "imported")
ENDED = ("finished", "failed")


def problem_of(record: Mapping[str, Any]) -> str | None:
    """Why a run may not be used: it ended early, or without a validation loss that is a number; None where it may."""
    status, error = record.get("status"), record.get("error")
    if status == "imported":
        return "it was imported, not trained here"
    if status != "finished":
        return f"its status is {status!r}" + (f" ({error})" if error else "")
    if misses_steps(record):
        return f"it was trained on {finite(record.get('tokens')) or 0:,} of {_asked_tokens(record):,} tokens"
    final = record.get("final")
    loss = final.get("val/loss") if isinstance(final, Mapping) else None
    if loss is None:
        return "it has no final validation loss"
    return None if finite(loss) is not None else f"its final validation loss is {loss}"


def state_of(record: Mapping[str, Any]) -> str:
    """One of `STATES`. A run that says it is finished and misses steps is interrupted, one that cannot be used failed."""
    status = record.get("status")
    if status == "finished" and problem_of(record):
        return "interrupted" if misses_steps(record) else "failed"
    return str(status) if status in STATES else "interrupted"


def misses_steps(record: Mapping[str, Any]) -> bool:
    """Whether it was trained on other than the tokens that its steps come to."""
    return _asked_tokens(record) not in (None, finite(record.get("tokens")))


def _asked_tokens(record: Mapping[str, Any]) -> float | None:
    """None where no number of steps was asked for (lightning's -1)."""
    steps, tokens_per_step = finite(record.get("steps")), finite(record.get("tokens_per_step"))
    return None if steps is None or steps < 0 or tokens_per_step is None else steps * tokens_per_step
