"""What the runs cost, those that came to nothing included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ngpt_lab.report.comparison import Comparison

FINAL, SEARCH, LOST = "used", "search", "left out"


def spent(comparison: Comparison) -> dict[str, Any]:
    """Runs, tokens, FLOPs and seconds of wall time by purpose and arm, in all, and the devices that they ran on.

    A run that was interrupted counts with what its record says was done; one without a record cannot be counted.
    """
    records = list(_records(comparison))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for purpose, arm, record in records:
        _add(rows.setdefault((purpose, arm), _nothing()), record)
    total = _nothing()
    for _, _, record in records:
        _add(total, record)
    return {
        "rows": [{"purpose": purpose, "arm": arm, **row} for (purpose, arm), row in rows.items()],
        "total": total,
        "devices": sorted(
            {str(device["name"]) for _, _, record in records if "name" in (device := record.get("device") or {})}
        ),
    }


def _records(comparison: Comparison) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    by_arm = sorted(comparison.runs, key=lambda run: comparison.arms.index(run.arm))
    yield from ((FINAL, run.arm, run.record) for run in by_arm)
    trials = sorted(comparison.trials, key=lambda trial: str(trial.record.get("arm")))
    yield from ((SEARCH, str(trial.record.get("arm")), trial.record) for trial in trials)
    # Trials among those left out could not be read, so that nothing is counted twice.
    yield from ((LOST, str(one.record.get("arm", "-")), one.record) for one in comparison.unused if one.record)


def _nothing() -> dict[str, Any]:
    return {"runs": 0, "tokens": 0, "flops": 0.0, "seconds": 0.0}


def _add(row: dict[str, Any], record: Mapping[str, Any]) -> None:
    tokens = record.get("tokens") or 0
    row["runs"] += 1
    row["tokens"] += tokens
    row["flops"] += float(tokens * ((record.get("model") or {}).get("flops_per_token") or 0))
    row["seconds"] += float(record.get("wall_time_s") or 0)


def sources(comparison: Comparison) -> dict[str, Any]:
    """Commits, versions and whether there were uncommitted changes, each with how many of the used runs had it."""
    runs = comparison.runs
    return {
        "commits": _counted(run.record.get("commit") or "not recorded" for run in runs),
        "versions": _counted(_listed(run.record["versions"]) for run in runs),
        "devices": _counted(_listed(run.record["device"]) for run in runs),
        "uncommitted": sum(bool(run.record.get("diff")) for run in runs),
    }


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in entries.items())


def _counted(texts: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return counts
