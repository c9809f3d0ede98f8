"""A specification is read as it is written, or refused with a sentence that names the file and the key."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.analysis.wording import short_key
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.spec import Spec
from ngpt_lab.sweep.spec_file import read_spec

LR = "model.init_args.optimizer.init_args.lr"
BASE = {"configs": ["model/ngpt.yaml", "size/debug.yaml"]}
PLAIN: dict[str, Any] = {
    "question": "Does it matter?",
    "bases": {"ngpt": BASE, "nemotron": {"configs": ["model/nemotron.yaml", "size/debug.yaml"]}},
    "compare": {"baseline": "nemotron"},
}


def read(folder: Path, **changes: Any) -> Spec:
    content = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return read_spec(folder / "sweep.yaml")


def test_what_is_left_out_has_the_stated_defaults(tmp_path: Path) -> None:
    spec = read(tmp_path)
    assert (spec.seeds, spec.budgets, spec.conditions, spec.tuning) == ((1, 2, 3), None, ({},), None)
    assert (spec.metric, spec.step_cost, spec.allow_unequal, spec.name) == ("test/bits_per_byte", 0, False, tmp_path.name)
    assert [base.name for base in spec.bases] == ["ngpt", "nemotron"]


def test_ablations_are_named_alone_composed_or_with_a_name_of_their_own(tmp_path: Path) -> None:
    ablations = ["slerp", ["scalar_s_qk", "scalar_s_u"], {"all": ["scalar_s_qk", "scalar_s_z"]}]
    [ngpt, _] = read(tmp_path, bases={**PLAIN["bases"], "ngpt": {**BASE, "ablations": ablations}}).bases
    files = {name: [path.stem for path in paths] for name, paths in ngpt.ablations.items()}
    assert files == {
        "slerp": ["slerp"],
        "scalar_s_qk+scalar_s_u": ["scalar_s_qk", "scalar_s_u"],
        "all": ["scalar_s_qk", "scalar_s_z"],
    }


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(PLAIN) + f"grid: {{{LR}: [1e-3, 2e-3]}}\n")
    assert read_spec(tmp_path / "sweep.yaml").conditions == ({LR: 1e-3}, {LR: 2e-3})


@given(values=st.lists(st.lists(st.integers(), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_a_mapping_crosses_and_a_list_does_not(values: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("grid")
    keys = [f"data.init_args.key{place}" for place in range(len(values))]
    crossed = read(folder, grid=dict(zip(keys, values, strict=True))).conditions
    assert len({tuple(point.items()) for point in crossed}) == len(crossed)
    count = 1
    for some in values:
        count *= len(some)
    assert len(crossed) == count
    assert read(folder, grid=[dict(point) for point in crossed]).conditions == crossed


def test_a_file_that_extends_another_replaces_its_keys(tmp_path: Path) -> None:
    read(tmp_path, seeds=[1, 2], budgets=[512, 1024])
    (tmp_path / "gpu.yaml").write_text("extends: sweep.yaml\nbudgets: [2048]\n")
    spec = read_spec(tmp_path / "gpu.yaml")
    assert (spec.seeds, spec.budgets, spec.question) == ((1, 2), (2048,), PLAIN["question"])
    # What is kept of it beside the results needs no other file.
    (tmp_path / "alone.yaml").write_text(spec.text)
    assert "extends" not in spec.text
    assert read_spec(tmp_path / "alone.yaml").budgets == (2048,)
    assert spec.name == f"{tmp_path.name}-gpu"


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5, unique=True))
def test_labels_tell_all_keys_apart(paths: list[tuple[str, ...]]) -> None:
    keys = [".init_args.".join(path) for path in paths]
    labels = [short_key(key, keys) for key in keys]
    endings = dict(zip(keys, labels, strict=True))
    for key, short in endings.items():
        assert key.replace(".init_args", "").endswith(short)
    # A key that is the whole end of another keeps its full name, which the other's longer one is not.
    assert len(set(labels)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sedes": 3}, "sedes is not known: the keys there are"),
        ({"question": None}, "question is missing"),
        ({"bases": None}, "bases is missing"),
        ({"bases": {"ngpt": {"configs": ["model/gnpt.yaml"]}}}, "there is no config file model/gnpt.yaml"),
        ({"bases": {"ngpt": {**BASE, "ablation": []}}}, "bases.ngpt.ablation is not known"),
        ({"bases": {"ngpt": {**BASE, "ablations": ["slurp"]}}}, "there is no ablation slurp"),
        ({"bases": {"ngpt": {**BASE, "ablations": ["slerp", "slerp"]}}}, "bases.ngpt.ablations names slerp twice"),
        ({"bases": {"<b>": BASE}}, "bases.<b>: a base's name is letters"),
        ({"compare": {"baseline": "nemotron", "metric": "val/los"}}, "compare.metric 'val/los' is not known: choose one of"),
        ({"compare": {"metric": "val/loss"}}, "compare.baseline is missing"),
        ({"grid": {}}, "grid is empty"),
        ({"grid": {LR: []}}, "grid is empty"),
        ({"grid": {LR: 0.1}}, f"grid.{LR} is 0.1: give a list"),
        ({"grid": [{LR: 0.1}, {LR: 0.1}]}, "twice"),
        ({"grid": {"seed_everything": [1, 2]}}, "sets seed_everything, which the sweep sets itself"),
        ({"seeds": []}, "seeds is []: give whole numbers"),
        ({"seeds": [1, 1]}, "seeds has a number twice"),
        ({"budgets": [0.5]}, "budgets is [0.5]: give whole numbers"),
        ({"step_cost": 1}, "step_cost is 1"),
        ({"tune": {"grid": {LR: [0.1, 0.2]}, "by": "seed"}}, "tune.by is 'seed'"),
        ({"tune": {"by": "arm"}}, "tune needs either grid"),
        ({"tune": {"grid": {LR: [0.1, 0.2]}, "seeds": [2]}}, "tune.seeds and seeds share 2"),
        ({"bases": {"ngpt": {**BASE, "ablations": [{"a/../b": ["slerp"]}]}}}, "'a/../b' is no name"),
        ({"grid": {"data.seed": [1, 2]}}, "sets data.seed, which the sweep sets itself"),
        ({"grid": {"trainer.devices": [1, 2]}}, "grid varies trainer.devices, which is one for all runs"),
        ({"tune": {"grid": {"data.init_args.batch_size": [8, 32]}}, "seeds": [1]}, "which must be the same for all arms"),
        ({"grid": {LR: [0.1, 0.2]}, "tune": {"grid": {LR: [0.1, 0.2]}}}, f"{LR} stands under grid and under tune"),
        ({"set": {LR: 0.1}, "bases": {"ngpt": {**BASE, "grid": {LR: [0.1, 0.2]}}}}, "under set and under bases.ngpt.grid"),
        (
            {"tune": {"grids": {"ngpt": {LR: [0.1, 0.2]}, "nemotron": {LR: [0.1]}}}},
            "different numbers of trials (ngpt 2, nemotron 1)",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, **changes)
    assert str(refused.value).startswith(f"{tmp_path / 'sweep.yaml'}: ")
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\tx: 1"])
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.yaml"):
        read_spec(tmp_path / "sweep.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_spec(tmp_path / "none.yaml")
