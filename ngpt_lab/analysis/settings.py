"""In which settings arms differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ngpt_lab.analysis.runs import Run, arms_of, at_full_budget, of_arm

_OWN_TO_A_RUN = {"config", "seed_everything", "trainer.default_root_dir"}
ABSENT = "(absent)"


def settings_that_differ(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Dotted key -> arm -> value, for every setting in which the arms' full-budget runs differ.

    Arms are compared at a seed that all have, so a data seed of an arm's own shows. The seed of the initialisation,
    the configuration files' names and paths of the run's own folder do not count.
    """
    full = at_full_budget(runs)
    chosen = {arm: _settings(_representative(full, arm)) for arm in arms_of(full)}
    return _differing(chosen)


def settings_that_differ_within(runs: Sequence[Run], arm: str) -> list[str]:
    """Keys, seeds apart, in which full-budget runs of one arm differ: such runs should not be averaged."""
    own = at_full_budget(of_arm(runs, arm))
    differing = _differing({str(run.folder): _settings(run) for run in own})
    return [key for key in differing if not key.endswith("seed")]


def _representative(runs: Sequence[Run], arm: str) -> Run:
    own = of_arm(runs, arm)
    shared = set.intersection(*({run.seed for run in of_arm(runs, other)} for other in arms_of(runs)))
    return min(own, key=lambda run: (run.seed not in shared, run.seed))


def _settings(run: Run) -> dict[str, Any]:
    name = re.compile(rf"^.*(^|/){re.escape(run.folder.resolve().name)}(?=/|$)")
    return {
        key: name.sub("(run folder)", value) if isinstance(value, str) else value
        for key, value in run.settings.items()
        if key not in _OWN_TO_A_RUN
    }


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = sorted({key for values in settings.values() for key in values})
    rows = {key: {owner: values.get(key, ABSENT) for owner, values in settings.items()} for key in keys}
    return {key: row for key, row in rows.items() if len({repr(value) for value in row.values()}) > 1}
