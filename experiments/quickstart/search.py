"""The search behind the default comparison's settings: the same number of trials for each arm, every one kept in results.csv.

    python experiments/quickstart/search.py

Stage 1 crosses each arm's two settings that matter most at this size with three learning rates an octave apart. Stage 2 varies
one more thing at a time from the best of stage 1. Stage 3 takes the best so far and sweeps the learning rate in steps of
sqrt(2), with two seeds; where the best sits at the edge of the grid, the grid grows on that side, for both arms alike.
Selection is by validation loss; the seeds are not used by the comparison, and the test split is not read.
Trials that results.csv already holds are not run again.
"""

import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.train import environment
from ngpt_lab.training.arms import arm_arguments, shipped

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
BUDGET = 409_600
PRECISION = "--trainer.precision=bf16-mixed"
SEEDS = (101, 102)

BACKBONE = "model.init_args.backbone.init_args"
LR = "model.init_args.optimizer.init_args.lr"
DECAY = "model.init_args.optimizer.init_args.weight_decay"
WARMUP = "model.init_args.schedule.init_args.warmup"
INIT = f"{BACKBONE}.initializer_range"
S_Z = f"{BACKBONE}.lm_head.init_args.init"
ALPHAS = tuple(f"{BACKBONE}.{residual}.init_args.init" for residual in ("attention_residual", "mlp_residual"))

Settings = dict[str, Any]


def alphas(value: Any) -> Settings:
    return dict.fromkeys(ALPHAS, value)


OCTAVES = (0.004, 0.008, 0.016)
START: dict[str, list[Settings]] = {
    "ngpt": [
        {S_Z: s_z, **alphas(alpha), WARMUP: 0.0, DECAY: 0.0, LR: lr}
        for (s_z, alpha), lr in product(
            [("sqrt(d_model)", "1/n_layers"), ("sqrt(d_model)", 0.05), (1.0, "1/n_layers")], OCTAVES
        )
    ],
    "nemotron": [{INIT: init, WARMUP: 0.1, DECAY: 0.1, LR: lr} for init, lr in product([0.035, 0.07, 0.14], OCTAVES)],
}
VARIATIONS: dict[str, list[Settings]] = {
    "ngpt": [{WARMUP: 0.1}, {DECAY: 0.1}, {S_Z: 5.0}, {S_Z: 20.0}],
    "nemotron": [{WARMUP: 0.02}, {WARMUP: 0.2}, {DECAY: 0.0}, {DECAY: 0.3}],
}
STEPS_AROUND = (-2, -1, 0, 1, 2)


def train(arm: str, settings: Settings, seed: int) -> float:
    """The final validation loss of one trial, nats per token."""
    from ngpt_lab.training.cli import CLI

    files = [shipped("configs") / "model" / f"{arm}.yaml", shipped("configs") / "size" / "1m.yaml"]
    with TemporaryDirectory() as folder:
        words = [f"--{key}={value}" for key, value in settings.items()]
        words += [f"--seed_everything={seed}", f"--data.seed={seed}", PRECISION, "--trainer.enable_progress_bar=false"]
        words += ["--trainer.val_check_interval=1000", f"--trainer.default_root_dir={folder}/run"]
        try:
            CLI(["fit", *arm_arguments(files), *words])
        except InputError:  # the loss is not finite
            return math.inf
        final: float = json.loads(Path(folder, "run", "run.json").read_text())["final"]["val/loss"]
    return final


def key(arm: str, settings: Settings, seed: int) -> str:
    return json.dumps([arm, settings, seed], sort_keys=True)


class Search:
    """The rows so far, and the pool that adds to them."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool
        self.rows: list[dict[str, Any]] = json.loads(pd.read_csv(RESULTS).to_json(orient="records")) if RESULTS.exists() else []

    def run(self, stage: int, trials: list[tuple[str, Settings, int]]) -> None:
        """Train what is not in the table yet, and write each row as it comes."""
        known = {row["trial"] for row in self.rows}
        waiting = [trial for trial in trials if key(*trial) not in known]
        futures = [self.pool.submit(train, *trial) for trial in waiting]
        for (arm, settings, seed), future in zip(waiting, futures, strict=True):
            own = {"stage": stage, "arm": arm, "seed": seed, "budget": BUDGET, "lr": settings[LR], "val_loss": future.result()}
            self.rows.append(own | settings | {"trial": key(arm, settings, seed)})
            print(
                {
                    name.rsplit(".", 3)[-3] + "." + name.rsplit(".", 1)[-1] if "." in name else name: v
                    for name, v in (own | settings).items()
                },
                flush=True,
            )
            write_atomically(RESULTS, pd.DataFrame(self.rows).to_csv(index=False))

    def best(self, arm: str, among: list[Settings], seeds: tuple[int, ...]) -> Settings:
        """The settings with the lowest mean validation loss over `seeds`."""
        loss = {row["trial"]: math.inf if row["val_loss"] is None else row["val_loss"] for row in self.rows}
        return min(among, key=lambda settings: sum(loss[key(arm, settings, seed)] for seed in seeds))


def neighbours(settings: Settings, steps: range) -> list[Settings]:
    """The settings with learning rates sqrt(2) apart around their own."""
    return [settings | {LR: float(f"{settings[LR] * 2 ** (step / 2):.4g}")} for step in steps]


def choose(search: Search) -> dict[str, Settings]:
    """Run the three stages; returns each arm's settings."""
    arms, first = list(START), SEEDS[:1]
    search.run(1, [(arm, settings, first[0]) for arm in arms for settings in START[arm]])
    tried = {arm: list(START[arm]) for arm in arms}
    at = {arm: search.best(arm, tried[arm], first) for arm in arms}
    for arm in arms:
        tried[arm] += [at[arm] | change for change in VARIATIONS[arm]]
    search.run(2, [(arm, settings, first[0]) for arm in arms for settings in tried[arm][len(START[arm]) :]])
    at = {arm: search.best(arm, tried[arm], first) for arm in arms}
    low, high = STEPS_AROUND[0], STEPS_AROUND[-1]
    while True:
        grids = {arm: neighbours(at[arm], range(low, high + 1)) for arm in arms}
        search.run(3, [(arm, settings, seed) for arm in arms for settings in grids[arm] for seed in SEEDS])
        chosen = {arm: search.best(arm, grids[arm], SEEDS) for arm in arms}
        places = [grids[arm].index(chosen[arm]) for arm in arms]
        if 0 not in places and high - low not in places:
            return chosen
        low, high = low - (0 in places), high + (high - low in places)


def as_yaml(settings: Settings) -> str:
    """Dotted keys as a config file, one key a line."""
    import yaml

    tree: dict[str, Any] = {}
    for dotted, value in settings.items():
        *path, leaf = dotted.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return "# Chosen by search.py; every trial is in results.csv.\n" + yaml.safe_dump(tree, sort_keys=False)


def main() -> None:
    with environment({"OMP_NUM_THREADS": "1"}), ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for arm, settings in choose(Search(pool)).items():
            write_atomically(HERE / f"{arm}.yaml", as_yaml(settings))
            print(arm, settings)


if __name__ == "__main__":
    sys.exit(main())
