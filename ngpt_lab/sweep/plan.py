"""A specification -> every run of the sweep, with a readable name and an id that hashes all that decides its result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.cells import Cell, check_patterns, make_cells, matches, names_of_points, point_name, words_for
from ngpt_lab.sweep.fairness import check_finishes
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.spec import Point, Spec

TUNE, FINAL = "tune", "final"
_ID_DIGITS = 8


@dataclass(frozen=True, eq=False)
class SweepRun:
    """One run: a cell with a budget and a seed; a trial of the tuning has the settings it tries, a final run none."""

    cell: Cell
    stage: str
    name: str
    budget: int
    seed: int
    trial: Point
    id: str

    @property
    def folder_name(self) -> str:
        """The run's folder, below the sweep's runs/."""
        return f"{self.name}-{self.id}"

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.budget // self.cell.tokens_per_step

    @property
    def flops(self) -> int:
        """Operations of the whole run."""
        return self.cell.flops_per_token * self.steps * self.cell.tokens_per_step

    def describe(self) -> dict[str, Any]:
        """What sweep.json says of it."""
        return {
            "folder": self.folder_name,
            "name": self.name,
            "id": self.id,
            "stage": self.stage,
            "base": self.cell.base.name,
            "ablation": self.cell.ablation,
            "arm": self.cell.arm,
            "condition": dict(self.cell.condition),
            "point": dict(self.cell.point),
            "trial": dict(self.trial),
            "budget": self.budget,
            "seed": self.seed,
            "steps": self.steps,
            "parameters": self.cell.parameters,
            "flops": self.flops,
        }


@dataclass(frozen=True, eq=False)
class Sweep:
    """All runs of a sweep: the trials, where arms are tuned, and the final ones."""

    spec: Spec
    folder: Path
    cells: tuple[Cell, ...]
    trials: tuple[SweepRun, ...]
    finals: tuple[SweepRun, ...]

    @cached_property
    def runs(self) -> tuple[SweepRun, ...]:
        """The trials, then the final runs."""
        return self.trials + self.finals

    def planned(self, run: SweepRun, chosen: Point) -> PlannedRun:
        """The run as it is carried out; `chosen` are the settings that the tuning chose for a final run."""
        settings = {**run.trial, **chosen}
        arguments = (
            *run.cell.arguments,
            *(f"--{key}={words_for(value)}" for key, value in settings.items()),
            f"--seed_everything={run.seed}",
            f"--data.seed={run.seed}",
            f"--trainer.max_steps={run.steps}",
        )
        told = run.describe()
        sweep = {key: told[key] for key in ("name", "stage", "base", "ablation", "condition", "point", "trial")}
        labels = {
            "arm": run.cell.arm,
            "budget": run.budget,
            "sweep": {**sweep, "sweep": self.spec.name, "chosen": dict(chosen)},
        }
        environment = {
            "WANDB_RUN_GROUP": self.spec.name,
            "WANDB_NAME": run.name,
            # An agent's own is for the final run that it asked for.
            **({"WANDB_RUN_ID": run.id} if run.stage == TUNE else {}),
            "WANDB_TAGS": ",".join(
                [run.stage, run.cell.base.name, *filter(None, [run.cell.ablation, run.cell.condition_name])]
            ),
        }
        # The test split is not for choosing: a trial never reads it.
        splits = ("val",) if run.stage == TUNE else ("val", "test")
        folder, cell = self.folder / "runs" / run.folder_name, run.cell
        return PlannedRun(folder, arguments, run.steps, labels, environment, splits, cell.devices, cell.nodes)

    def describe(self, command: str) -> dict[str, Any]:
        """The content of sweep.json."""
        tuning = self.spec.tuning
        keys = sorted({key for points in tuning.points.values() for point in points for key in point}) if tuning else []
        return {
            "name": self.spec.name,
            "question": self.spec.question,
            "spec": str(self.spec.path),
            "command": command,
            "baseline": self.spec.baseline,
            "metric": self.spec.metric,
            "step_cost": self.spec.step_cost,
            "tune": {"keys": keys, "by": tuning.by, "seeds": list(tuning.seeds)} if tuning else None,
            "runs": [run.describe() for run in self.runs],
        }

    def settle(self, command: str) -> None:
        """Write sweep.json, or make sure that the one there is this sweep's; one that grew by runs is still the same.

        Raises:
            InputError: the folder holds another sweep, or something else.
        """
        path = self.folder / "sweep.json"
        content = self.describe(command)
        if path.is_file():
            stored = _stored(path)
            gone = {run["folder"] for run in stored["runs"]} - {run["folder"] for run in content["runs"]}
            told = [f"{len(gone)} run(s) that this one has not, {min(gone)} among them"] if gone else []
            told += [f"{key} {stored.get(key)}" for key in ("baseline", "metric") if stored.get(key) != content[key]]
            if told:
                raise InputError(
                    f"{self.folder} holds the results of another specification, with {' and '.join(told)}: choose another --out"
                )
            content["command"] = stored.get("command", command)
        elif self.folder.is_dir() and any(not file.name.startswith(".") for file in self.folder.iterdir()):
            raise InputError(f"{self.folder} is in use by something else: choose another --out")
        # First what makes the folder a sweep's: another worker may look at it any moment, and this one may be killed.
        write_atomically(path, json.dumps(content, indent=1) + "\n")
        write_atomically(self.folder / "sweep.yaml", self.spec.text)


def make_sweep(spec: Spec, folder: Path) -> Sweep:
    """Parse every arm and settle the runs.

    Raises:
        InputError: arms that cannot be compared, or budgets that they cannot finish.
    """
    check_patterns(spec)
    cells = make_cells(spec)
    names = names_of_points(spec)
    finals = [_final(spec, cell, budget, seed) for cell in cells for budget in _budgets(spec, cell) for seed in spec.seeds]
    finals = [run for run in finals if _is_wanted(spec, run)]
    if not finals:
        raise InputError(f"{spec.path}: include and exclude leave no run")
    kept = {(run.cell, run.budget) for run in finals}
    trials = [run for cell in _tuned(spec, cells, kept) for run in _trials(spec, cell, kept, names)]
    return Sweep(spec, folder, tuple(cells), tuple(trials), tuple(finals))


def _budgets(spec: Spec, cell: Cell) -> Sequence[int]:
    budgets = spec.budgets or (cell.settings["trainer.max_steps"] * cell.tokens_per_step,)
    if min(budgets) < cell.tokens_per_step:
        raise InputError(f"{spec.path}: the budget {min(budgets)} is less than one step of {cell.tokens_per_step} tokens")
    tuned = spec.tuning.points[cell.base.name] if spec.tuning else ({},)
    try:
        for point in tuned:
            check_finishes({cell.arm: {**cell.settings, **point}}, min(budgets), cell.tokens_per_step)
    except InputError as error:
        raise InputError(f"{spec.path}: {error}") from error
    return budgets


def _final(spec: Spec, cell: Cell, budget: int, seed: int) -> SweepRun:
    name = "-".join(filter(None, [cell.arm, cell.condition_name, _budget_name(spec, budget), f"s{seed}"]))
    tuning = [spec.tuning.by, spec.tuning.seeds, spec.tuning.points[cell.base.name]] if spec.tuning else None
    return SweepRun(cell, FINAL, name, budget, seed, {}, _id(cell, budget, seed, {"tune": tuning}))


def _tuned(spec: Spec, cells: Sequence[Cell], kept: set[tuple[Cell, int]]) -> list[Cell]:
    """The cells that get trials: all, or the first of each base and condition."""
    if spec.tuning is None:
        return []
    used = [cell for cell in cells if any(cell is other for other, _ in kept)]
    if spec.tuning.by == "arm":
        return used
    return list({cell.tuned_as: cell for cell in reversed(used)}.values())[::-1]


def _trials(spec: Spec, cell: Cell, kept: set[tuple[Cell, int]], names: Mapping[str, str]) -> list[SweepRun]:
    assert spec.tuning is not None
    of_all = spec.tuning.by == "base"
    budgets = sorted({b for other, b in kept if other is cell or (of_all and other.tuned_as == cell.tuned_as)})
    return [
        SweepRun(
            cell,
            TUNE,
            "-".join(filter(None, ["tune", cell.arm, cell.condition_name, _budget_name(spec, budget)]))
            + f"{point_name(point, names)}-s{seed}",
            budget,
            seed,
            point,
            _id(cell, budget, seed, {"trial": dict(point)}),
        )
        for budget in budgets
        for point in spec.tuning.points[cell.base.name]
        for seed in spec.tuning.seeds
    ]


def _budget_name(spec: Spec, budget: int) -> str:
    return str(budget) if spec.budgets and len(spec.budgets) > 1 else ""


def _id(cell: Cell, budget: int, seed: int, more: Mapping[str, Any]) -> str:
    """A hash of the whole parsed config, the data and what is varied over it."""
    data = {key: value for key, value in cell.data.items() if key != "seed"}
    content = [dict(cell.settings), data, cell.arm, dict(cell.condition), budget, seed, dict(more)]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def _is_wanted(spec: Spec, run: SweepRun) -> bool:
    cell = run.cell
    fields = {
        "base": cell.base.name,
        "ablation": cell.ablation,
        "arm": cell.arm,
        "seed": run.seed,
        "budget": run.budget,
        **dict.fromkeys(names_of_points(spec)),
        **cell.condition,
        **cell.point,
    }
    included = not spec.include or any(matches(pattern, fields) for pattern in spec.include)
    return included and not any(matches(pattern, fields) for pattern in spec.exclude)


def _stored(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if isinstance(content["runs"], list):
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} cannot be read: restore it, or choose another --out")
