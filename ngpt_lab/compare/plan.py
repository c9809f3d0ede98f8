"""What a comparison consists of, settled and checked before anything is trained."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngpt_lab.compare.lock import LOCK
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.fairness import check_finishes, check_same, check_sizes
from ngpt_lab.sweep.run import PlannedRun, devices_asked
from ngpt_lab.training.arms import arm_arguments
from ngpt_lab.training.cli import DryCLI


@dataclass(frozen=True)
class Plan:
    """A comparison: which arms, seeds and budgets, and what each arm is."""

    folder: Path
    arms: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    tokens_per_step: int
    data: Mapping[str, Any]

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run, the longest first so that the pool ends evenly."""
        return [
            self._run(arm, budget, seed)
            for budget in sorted(self.budgets, reverse=True)
            for seed in self.seeds
            for arm in self.arms
        ]

    def _run(self, arm: str, budget: int, seed: int) -> PlannedRun:
        steps = budget // self.tokens_per_step
        chosen = [f"--seed_everything={seed}", f"--data.seed={seed}", f"--trainer.max_steps={steps}"]
        folder = self.folder / "runs" / f"{arm}-{budget}-s{seed}"
        labels, devices = {"arm": arm, "budget": budget}, devices_asked(self.settings[arm])
        return PlannedRun(folder, (*self.arms[arm], *chosen), steps, labels, devices=devices)

    def identity(self) -> dict[str, Any]:
        """All that decides the results; two plans with the same identity are the same comparison."""
        return {
            "arms": {name: {"arguments": list(args), "settings": self.settings[name]} for name, args in self.arms.items()},
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "budgets": list(self.budgets),
            "tokens_per_step": self.tokens_per_step,
            "data": dict(self.data),
        }

    def settle(self, command: str) -> None:
        """Write compare.json, with the command line that asked for it, or make sure that the one there is this comparison's.

        Raises:
            InputError: the folder holds another comparison, or something else.
        """
        identity = self.identity()
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        path = self.folder / "compare.json"
        if path.is_file():
            if json.loads(path.read_text()).get("hash") != digest:
                raise InputError(
                    f"{self.folder} holds a comparison with another config (or Python version): choose another --out"
                )
        elif self.folder.is_dir() and any(not path.name.startswith(LOCK) for path in self.folder.iterdir()):
            raise InputError(f"{self.folder} is in use by something else: choose another --out")
        else:
            write_atomically(path, json.dumps({"hash": digest, "command": command, **identity}, indent=1, default=str) + "\n")


def make_plan(
    folder: Path,
    arms: Mapping[str, Sequence[Path]],
    baseline: str,
    seeds: int,
    budgets: Sequence[int] | None,
    overrides: Sequence[str],
    allow_unequal: bool,
) -> Plan:
    """Parse every arm, check that the comparison is fair, and settle its runs.

    Args:
        folder: where the comparison goes.
        arms: each arm's config files.
        baseline: the arm the others are compared with.
        seeds: how many paired seeds; they are 1 to `seeds`, none of which the quickstart search uses (101 and 102).
        budgets: tokens of each finished budget; by default a quarter, a half and all of the arms' own max_steps.
        overrides: arguments of `fit` for every arm.
        allow_unequal: go on with arms whose sizes are more than 2% apart.

    Raises:
        InputError: arms that do not parse, see other batches, differ in size, or would not finish their schedules.
    """
    arguments = {name: (*arm_arguments(files), *overrides) for name, files in arms.items()}
    dry = {name: DryCLI(list(words)) for name, words in arguments.items()}
    settings = {name: cli.settings for name, cli in dry.items()}
    check_same(settings, baseline)
    if not allow_unequal:
        check_sizes({name: cli.parameters for name, cli in dry.items()}, baseline)
    data = dry[baseline].datamodule
    data.prepare_data()
    data.setup("fit")
    tokens_per_step = data.tokens_per_batch * settings[baseline]["trainer.accumulate_grad_batches"]
    if budgets is None:
        steps = settings[baseline]["trainer.max_steps"]
        budgets = [max(1, steps // part) * tokens_per_step for part in (4, 2, 1)]
    for budget in budgets:
        if budget < tokens_per_step:
            raise InputError(f"--budgets {budget} is less than one step of {tokens_per_step} tokens")
    check_finishes(settings, min(budgets), tokens_per_step)
    return Plan(
        folder,
        arguments,
        settings,
        baseline,
        tuple(range(1, seeds + 1)),
        tuple(sorted(set(budgets))),
        tokens_per_step,
        data.describe(),
    )
