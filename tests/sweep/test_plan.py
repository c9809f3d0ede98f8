"""A plan holds every run once, under a name that can be read and an id that follows from what decides its result."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.command import demand_of
from ngpt_lab.sweep.plan import Sweep, make_sweep
from ngpt_lab.sweep.wandb_file import wandb_file

LR = "model.init_args.optimizer.init_args.lr"
EVERY = "normalize_weights.every_n_steps"
NGPT = {"configs": ["model/ngpt.yaml", "size/debug.yaml", "short.yaml"]}
NEMOTRON = {"configs": ["model/nemotron.yaml", "size/debug.yaml", "short.yaml"]}
Plan = Callable[..., Sweep]


def test_the_runs_are_the_product_less_what_is_excluded(tmp_path: Path, plan: Plan) -> None:
    sweep = plan(
        grid={LR: [0.001, 0.002]},
        exclude=[{"ablation": "slerp", "seed": 2}, {"base": "nemotron", "budget": 512, LR: [0.001]}],
    )
    wanted = {
        (arm, lr, budget, seed)
        for arm, lr, budget, seed in product(["ngpt", "ngpt-slerp", "nemotron"], [0.001, 0.002], [512, 1024], [1, 2])
        if not (arm == "ngpt-slerp" and seed == 2) and not (arm == "nemotron" and budget == 512 and lr == 0.001)
    }
    assert {(run.cell.arm, run.cell.condition[LR], run.budget, run.seed) for run in sweep.finals} == wanted
    assert len(sweep.finals) == len(wanted)
    assert {run.name for run in sweep.finals} >= {"ngpt-slerp-lr0.001-512-s1", "nemotron-lr0.002-1024-s2"}
    assert len({run.name for run in sweep.runs}) == len({run.id for run in sweep.runs}) == len(wanted)


def test_a_pattern_hits_only_runs_that_have_its_key(plan: Plan) -> None:
    eps = "model.init_args.optimizer.init_args.eps"
    sweep = plan(grid=[{LR: 0.001}, {LR: 0.002}, {eps: 1e-7}], exclude=[{LR: 0.001}], seeds=[1], budgets=[512])
    assert {run.cell.condition_name for run in sweep.finals} == {"lr0.002", "eps1e-07"}


def test_files_with_one_ending_are_two_conditions(plan: Plan, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("".join(f"{name} line {n} says {n * n}\n" for n in range(4000)))
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    local = {"data.init_args.source": "ngpt_lab.data.TextFiles"}
    sweep = plan(set=local, grid={"data.init_args.source.init_args.files": files}, seeds=[1], budgets=[512])
    assert len({run.name for run in sweep.finals}) == len(sweep.finals) == 6


def test_an_id_changes_with_what_decides_the_result_and_with_nothing_else(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {run.name: run.id for run in plan().finals}
    # More seeds, an arm more, other words for the question: what was there keeps its ids.
    bases = {"nemotron": NEMOTRON, "ngpt": {**NGPT, "ablations": ["riemannian", "slerp"]}}
    grown = {run.name: run.id for run in plan(bases=bases, seeds=[3, 2, 1], question="Does it?").finals}
    assert before.items() < grown.items()
    other = {run.name: run.id for run in plan(set={"model.init_args.optimizer.init_args.eps": 1e-7}).finals}
    assert other.keys() == before.keys()
    assert not set(other.values()) & set(before.values())
    (tmp_path / "sweep.yaml").unlink()
    text = (tmp_path / "words.txt").read_text()
    sweep = plan()
    assert {run.name: run.id for run in sweep.finals} == before
    (tmp_path / "words.txt").write_text(text.replace("says", "said"))
    with pytest.raises(InputError, match=r"words.txt has changed since it was tokenized into"):
        make_sweep(sweep.spec, tmp_path / "out")
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "cache"))
    assert not {run.id for run in make_sweep(sweep.spec, tmp_path / "out").finals} & set(before.values())


def test_the_points_of_a_base_are_arms_and_are_compared_with_each_other(tmp_path: Path, plan: Plan) -> None:
    bases = {"ngpt": {**NGPT, "grid": {EVERY: [1, 4]}}}
    sweep = plan(bases=bases, compare={"baseline": "ngpt-every_n_steps1"}, seeds=[1], budgets=[512])
    assert [run.name for run in sweep.finals] == ["ngpt-every_n_steps1-s1", "ngpt-every_n_steps4-s1"]
    assert f"--{EVERY}=4" in sweep.planned(sweep.finals[1], {}).arguments


def test_every_tuned_arm_has_the_same_trials_at_every_budget(tmp_path: Path, plan: Plan) -> None:
    tune = {"seeds": [7], "grid": {LR: [0.001, 0.002, 0.004]}}
    by_arm = plan(tune=tune)
    tried = {
        (arm, budget): sorted(run.trial[LR] for run in by_arm.trials if (run.cell.arm, run.budget) == (arm, budget))
        for arm, budget in product(["ngpt", "ngpt-slerp", "nemotron"], [512, 1024])
    }
    assert len(by_arm.trials) == 18
    assert all(rates == [0.001, 0.002, 0.004] for rates in tried.values())
    assert {run.seed for run in by_arm.trials} == {7}
    by_base = plan(tune={**tune, "by": "base"})
    assert {run.cell.arm for run in by_base.trials} == {"ngpt", "nemotron"}
    # How a run's settings are chosen decides its result.
    assert not {run.id for run in by_arm.finals} & {run.id for run in by_base.finals}
    chosen = by_base.planned(by_base.finals[0], {LR: 0.002})
    assert f"--{LR}=0.002" in chosen.arguments
    assert chosen.labels["sweep"]["chosen"] == {LR: 0.002}


def test_a_folder_takes_a_grown_sweep_and_refuses_another(tmp_path: Path, plan: Plan) -> None:
    small = plan(seeds=[1])
    small.settle("ngpt-lab sweep")
    small.settle("again")
    plan(seeds=[1, 2]).settle("grown")
    stored = (tmp_path / "out" / "sweep.json").read_text()
    for changes in ({"seeds": [1]}, {"compare": {"baseline": "ngpt"}}, {"budgets": [512]}):
        with pytest.raises(InputError, match="holds the results of another specification"):
            plan(**changes).settle("other")
    assert (tmp_path / "out" / "sweep.json").read_text() == stored
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match="in use by something else"):
        replace(small, folder=tmp_path / "mine").settle("x")


def test_a_sweep_file_for_wandb_names_every_final_run(tmp_path: Path, plan: Plan) -> None:
    sweep = plan(tune={"grid": {LR: [0.001, 0.002]}, "seeds": [7]})
    file = wandb_file(sweep)
    assert file["parameters"]["run"]["values"] == [run.name for run in sweep.finals]
    planned = sweep.planned(sweep.finals[0], {})
    assert planned.environment["WANDB_RUN_GROUP"] == tmp_path.name
    assert planned.environment["WANDB_NAME"] == sweep.finals[0].name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bases": {"ngpt": {**NGPT, "ablations": ["lerp"]}, "nemotron": NEMOTRON}}, "ngpt and ngpt-lerp are the same config"),
        ({"bases": {"ngpt": {**NGPT, "ablations": ["fixed_norm", ["slerp", "riemannian"]]}, "nemotron": NEMOTRON}}, "slerp"),
        ({"compare": {"baseline": "nemotron-1m"}}, "compare.baseline nemotron-1m is not among the arms: ngpt, ngpt-slerp"),
        ({"grid": {"model.init_args.optimizer.init_args.learning_rate": [1]}}, "learning_rate"),
        ({"budgets": [100]}, "the budget 100 is less than one step of 256 tokens"),
        ({"exclude": [{"colour": "red"}]}, "exclude has the field 'colour'"),
        ({"exclude": [{"arm": "nemotorn"}]}, "exclude has the arm 'nemotorn', which no run has: there are ngpt, ngpt-slerp"),
        ({"exclude": [{"seed": [1, 2]}]}, "include and exclude leave no run"),
        ({"bases": {"ngpt": {**NGPT, "grid": {"data.init_args.batch_size": [4]}}, "nemotron": NEMOTRON}}, "batch_size"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(InputError) as refused:
        plan(**changes)
    assert str(refused.value).startswith(f"{tmp_path / 'sweep.yaml'}: ")
    assert told in str(refused.value)


@pytest.mark.parametrize(("devices", "count"), [([0, 1], 2), ("0,1", 2), ("0,", 1), (3, 3), ("auto", 1)])
def test_devices_that_are_named_one_by_one_are_counted(devices: object, count: int, plan: Plan) -> None:
    sweep = plan(set={"trainer.devices": devices, "trainer.accelerator": "gpu"}, seeds=[1], budgets=[512])
    demand = demand_of(sweep, None)
    assert (demand.devices, demand.gpus, demand.accelerator) == (count, count, "gpu")
    assert {sweep.planned(run, {}).devices for run in sweep.finals} == {count}


def test_runs_of_different_accelerators_are_not_one_sweep(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text("trainer: {accelerator: cpu}\n")
    (tmp_path / "gpu.yaml").write_text("trainer: {accelerator: gpu}\n")
    ngpt, nemotron = ({"configs": [*base["configs"], on]} for base, on in ((NGPT, "gpu.yaml"), (NEMOTRON, "cpu.yaml")))
    with pytest.raises(InputError, match=r"ngpt and nemotron differ in trainer.accelerator \(gpu and cpu\)"):
        plan(bases={"ngpt": ngpt, "nemotron": nemotron}, allow_unequal=True)
    with pytest.raises(InputError, match=r"grid varies trainer.accelerator, which is one for all runs"):
        plan(grid={"trainer.accelerator": ["gpu", "cpu"]})
