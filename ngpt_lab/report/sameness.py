"""Runs of different data are no comparison, whatever their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ngpt_lab.analysis.runs import Run
from ngpt_lab.errors import InputError

_DECIDES = {
    "fingerprint": "the text (its fingerprint)",
    "tokenizer": "the tokenizer",
    "vocab_size": "the vocabulary's size",
    "seq_len": "seq_len",
    "eval_windows": "the number of evaluation windows",
}
"""Entry of a record's `data` -> what it is called. An entry that a record does not have is not held against it."""


def refuse_other_data(runs: Sequence[Run]) -> None:
    """Refuse runs that were not trained and judged on the same text, cut and counted alike.

    Raises:
        InputError: names the first two runs that differ, and in what.
    """
    for key in _DECIDES:
        known = [run for run in runs if run.record["data"].get(key) is not None]
        for run in known[1:]:
            if run.record["data"][key] != known[0].record["data"][key]:
                raise InputError(_sentence(known[0], run))


def _sentence(first: Run, second: Run) -> str:
    ours, theirs = first.record["data"], second.record["data"]
    both = [key for key in _DECIDES if ours.get(key) is not None and theirs.get(key) is not None]
    differing = [f"{_DECIDES[key]}: {ours[key]} and {theirs[key]}" for key in both if ours[key] != theirs[key]]
    return (
        f"{first.folder} and {second.folder} differ in {'; '.join(differing)}: "
        "such runs are no comparison, so give only runs of the same data."
    )
