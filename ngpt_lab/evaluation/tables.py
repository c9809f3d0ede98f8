"""Results of an evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def tasks_table(record: Mapping[str, Any]) -> Table:
    """Tasks and groups, a row a metric."""
    table = Table(title=title(record))
    for column in ("task", "version", "texts", "shots", "metric"):
        table.add_column(column)
    table.add_column("value +- stderr", justify="right")
    for kind in ("tasks", "groups"):
        for name, task in record["results"][kind].items():
            own = [name, str(task["version"]), count(task), told(task["num_fewshot"])]
            for metric in task["metrics"]:
                arrow = {True: " (higher is better)", False: " (lower is better)"}.get(metric["higher_is_better"], "")
                chosen = "" if metric["filter"] == "none" else f", {metric['filter']}"
                table.add_row(*own, f"{metric['metric']}{chosen}{arrow}", with_error(metric["value"], metric["stderr"]))
                own = [""] * 4
    return table


def lengths_table(record: Mapping[str, Any]) -> Table:
    """A row a length of the context."""
    results = record["results"]
    trained = results["trained_length"]
    table = Table(
        title=title(record),
        caption=f"the last {results['scored_tokens']} tokens of each window, the same ones at every length; in nats, with 95% "
        "intervals over windows" + ("" if trained is None else f"; * longer than in training ({trained:,})"),
    )
    for column in ("context", "windows", "loss", f"above that at {results['change_from']}", "perplexity", "bits per byte"):
        table.add_column(column, justify="right")
    for row in results["lengths"]:
        beyond = " *" if trained is not None and row["length"] > trained else ""
        table.add_row(
            f"{row['length']:,}{beyond}",
            str(row["windows"]),
            within(row["loss"], row["low"], row["high"]),
            within(row["change"], row["change_low"], row["change_high"]),
            told(row["perplexity"]),
            told(row["bits_per_byte"]),
        )
    return table


def title(record: Mapping[str, Any]) -> str:
    """What was evaluated."""
    of, step = record["checkpoint"], record["checkpoint"]["step"]
    return f"{of['run']}, {of['file']}" + ("" if step is None else f" (step {step:,})")


def count(task: Mapping[str, Any]) -> str:
    """How many texts were read, and of how many."""
    n, of = task["n"], task["n_of"]
    return told(n) if n == of else f"{told(n)} of {told(of)}"


def with_error(value: float | None, error: float | None) -> str:
    """A value and its standard error."""
    return told(value) if error is None else f"{told(value)} +- {error:.4f}"


def within(value: float | None, low: float | None, high: float | None) -> str:
    """A value and its interval."""
    return told(value) if value is None or low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def told(value: Any) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
