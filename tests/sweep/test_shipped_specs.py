"""Every specification that is shipped can be read, names arms that exist, and is told of in its README."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml

from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.sweep.cells import arm_name, names_of_points, words_for
from ngpt_lab.sweep.fairness import check_same, check_sizes
from ngpt_lab.sweep.spec import Base, Spec
from ngpt_lab.sweep.spec_file import read_spec
from ngpt_lab.training.arms import arm_arguments
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.composition import check_ablations

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SWEEPS = sorted(EXPERIMENTS.glob("*/sweep.yaml"))
LARGE = [sweep.with_name("gpu.yaml") for sweep in SWEEPS]
SPECS = [*SWEEPS, *LARGE, EXPERIMENTS / "30m" / "gpu.yaml"]
SHIPPED = {
    *("table4", "table5", "table6", "speedup", "learning-rate", "controls", "storage", "projection", "geometry"),
    *("parametrisation", "context", "plasticity", "capacity", "first-look"),
}
RUNS_OF_AN_HOUR = 100
# Of two cores that carry out 40 GFLOP a second each, as these sizes do in float32 on a core of a server.
FLOPS_OF_AN_HOUR = 2 * 3600 * 40e9


def told_as(file: Path) -> str:
    return f"{file.parent.name}-{file.stem}"


def arms(spec: Spec) -> list[str]:
    names = names_of_points(spec)
    return [
        arm_name(base, ablation, point, names)
        for base in spec.bases
        for ablation in ("", *base.ablations)
        for point in base.points
    ]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the local files that the GPU sizes read, long enough for a window of 8192 in every split."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("data", "data/first", "data/second"):
        (folder / name).mkdir()
        (folder / name / "text.txt").write_text("\n".join(f"{name}, line {line} of {line * line}" for line in range(12_000)))
    return folder


@cache
def parsed(*configs: Path) -> DryCLI:
    """Specifications share many bases, and each takes long to parse."""
    return DryCLI(arm_arguments(configs))


def keys(spec: Spec, base: Base) -> set[str]:
    """Every dotted key that is set over a base's config files."""
    assert spec.tuning is not None
    points = [spec.settings, *spec.conditions, *base.points, *spec.tuning.points[base.name]]
    return {key for point in points for key in point}


def test_every_question_has_both_sizes_and_a_readme() -> None:
    assert {file.parent.name for file in SWEEPS} >= SHIPPED
    assert [file for file in SPECS if not file.is_file()] == []


@pytest.mark.parametrize("file", SPECS, ids=told_as)
def test_a_specification_is_read_and_its_baseline_is_one_of_its_arms(file: Path) -> None:
    spec = read_spec(file)
    assert spec.baseline in arms(spec)
    assert len(set(arms(spec))) == len(arms(spec))
    assert len(spec.seeds) >= 3
    assert spec.tuning is not None


@pytest.mark.parametrize("file", SPECS, ids=told_as)
def test_the_ablations_of_an_arm_do_not_touch_the_same_key(file: Path) -> None:
    for base in read_spec(file).bases:
        for files in base.ablations.values():
            check_ablations([word for ablation in files for word in ("-c", str(ablation))])


@pytest.mark.parametrize("file", SPECS, ids=told_as)
def test_the_bases_parse_have_every_key_that_is_set_and_can_be_compared(
    file: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(texts)
    spec = read_spec(file)
    built = {base.name: parsed(*base.configs) for base in spec.bases}
    for base in spec.bases:
        assert keys(spec, base) - built[base.name].settings.keys() == set()
    first = spec.bases[0].name
    check_same({name: cli.settings for name, cli in built.items()}, first)
    check_sizes({name: cli.parameters for name, cli in built.items()}, first)


def test_the_first_look_trains_both_models_four_ablations_and_three_seeds() -> None:
    spec = read_spec(EXPERIMENTS / "first-look" / "sweep.yaml")
    assert [base.configs[0].stem for base in spec.bases] == ["ngpt", "nemotron"]
    assert sum(len(base.ablations) for base in spec.bases) >= 4
    assert len(spec.seeds) == 3
    assert len(arms(spec)) * len(spec.seeds) >= 24


@cache
def dry(*arguments: str) -> DryCLI:
    """A base under a condition."""
    return DryCLI(list(arguments))


def runs_and_flops(spec: Spec) -> tuple[int, float]:
    """How many runs a sweep has at the most, and their operations, every ablation taken for its base."""
    assert spec.tuning is not None
    count, flops = 0, 0.0
    for condition, base in product(spec.conditions, spec.bases):
        words = (f"--{key}={words_for(value)}" for key, value in {**spec.settings, **condition}.items())
        built = dry(*arm_arguments(base.configs), *words)
        settings = built.settings
        step = built.datamodule.tokens_per_batch * settings["trainer.accumulate_grad_batches"]
        budgets = spec.budgets or (settings["trainer.max_steps"] * step,)
        own = (1 + len(base.ablations)) * len(base.points)
        tuned = 1 if spec.tuning.by == "base" else own
        runs = own * len(spec.seeds) + tuned * len(spec.tuning.points[base.name]) * len(spec.tuning.seeds)
        count += runs * len(budgets)
        flops += runs * sum(budgets) * flops_per_token(built.model.backbone, built.datamodule.seq_len)
    return count, flops


@pytest.mark.parametrize("file", SWEEPS, ids=told_as)
def test_a_two_core_size_has_no_more_runs_and_operations_than_an_hour_takes(file: Path) -> None:
    runs, flops = runs_and_flops(read_spec(file))
    assert runs <= RUNS_OF_AN_HOUR
    assert flops <= FLOPS_OF_AN_HOUR


@pytest.mark.parametrize("file", LARGE, ids=told_as)
def test_a_gpu_size_asks_the_same_question_with_the_same_ablations(file: Path) -> None:
    small, large = read_spec(file.with_name("sweep.yaml")), read_spec(file)
    assert large.question == small.question
    assert yaml.safe_load(file.read_text())["extends"] == "sweep.yaml"
    own, other = ([set(base.ablations) for base in spec.bases] for spec in (small, large))
    start = {"first-look": {"s_z_init_1": "s_z_init_large"}}.get(file.parent.name, {})
    assert [{start.get(name, name) for name in names} for names in own] == other


@pytest.mark.parametrize("file", SWEEPS, ids=told_as)
def test_a_readme_tells_question_prediction_command_cost_and_result(file: Path) -> None:
    readme = (file.parent / "README.md").read_text()
    for part in ("**Question.**", "**Prediction**", "**Command**", "**Cost.**", "**Rules.**", "**Result"):
        assert part in readme, part
    assert f"ngpt-lab sweep experiments/{file.parent.name}/sweep.yaml" in readme
    assert "gpu.yaml" in readme


# Rows of the tables less their first, which is the default: (s_init, s_scale) or the granularity of each scale.
TABLE4 = {
    "s_qk_init_0.33",
    "s_qk_init_0.05",
    "s_qk_stored_1",
    "s_qk_init_0.33+s_qk_stored_1",
    "s_qk_init_0.05+s_qk_stored_1",
    "s_u_init_small",
    "s_u_stored_small",
    "s_u_init_small+s_u_stored_small",
    "s_z_init_large",
    "s_z_stored_1",
    "s_z_init_large+s_z_stored_1",
}


def test_every_row_of_the_papers_tables_is_an_arm() -> None:
    four, five, six = (read_spec(EXPERIMENTS / f"table{number}" / "sweep.yaml").bases[0] for number in (4, 5, 6))
    assert set(four.ablations) == TABLE4
    parts = [{file.stem for file in files} for files in five.ablations.values()]
    assert parts == [
        {"scalar_s_qk"},
        {"scalar_s_u"},
        {"scalar_s_z"},
        {"scalar_alpha"},
        {"scalar_s_qk", "scalar_s_u"},
        {"scalar_s_qk", "scalar_s_u", "scalar_s_z"},
        {"scalar_s_qk", "scalar_s_u", "scalar_s_z", "scalar_alpha"},
        {"fixed_s_qk"},
        {"fixed_s_u"},
        {"fixed_s_qk", "fixed_s_u"},
        {"fixed_s_qk", "fixed_s_u", "scalar_s_z"},
    ]
    assert set(six.ablations) == {"no_qk_norm"}
