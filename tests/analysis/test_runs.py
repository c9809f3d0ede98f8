import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ngpt_lab.analysis.frames import at_the_end, final_losses, history, layer_history, paired_difference
from ngpt_lab.analysis.runs import at_full_budget, load_run, name_arms
from ngpt_lab.analysis.settings import ABSENT, settings_that_differ, settings_that_differ_within
from ngpt_lab.errors import InputError

WriteRun = Callable[..., Path]


def test_a_run_knows_what_was_trained(tmp_path: Path, write_run: WriteRun) -> None:
    run = load_run(write_run(tmp_path / "my-arm-819200-s7", seed=7, loss=1.25))
    assert (run.arm, run.budget, run.seed, run.tokens) == ("my-arm", 819_200, 7, 819_200)
    assert run.final["val/loss"] == 1.25
    assert run.problem is None


def test_the_record_names_arm_and_budget_before_the_folder_does(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(tmp_path / "a-100-s1")
    assert (load_run(folder).arm, load_run(folder).budget) == ("a", 100)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"arm": "b", "budget": 200}))
    assert (load_run(folder).arm, load_run(folder).budget) == ("b", 200)


def test_a_loose_run_is_named_by_its_model(tmp_path: Path, write_run: WriteRun) -> None:
    run = load_run(write_run(tmp_path / "loose", arm="nemotron"))
    assert (run.arm, run.budget) == ("Nemotron", 819_200)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "failed", "error": "out of memory"}, "'failed' (out of memory)"),
        ({"status": "running", "final": None}, "'running'"),
        ({"status": "stopped"}, "'stopped'"),
        ({"tokens": 819_199}, "trained on 819,199 of 819,200 tokens"),
        ({"final": {}}, "no final validation loss"),
        ({"final": {"val/loss": float("nan")}}, "is nan"),
    ],
)
def test_a_run_that_did_not_finish_well_says_why(tmp_path: Path, write_run: WriteRun, changes: dict, problem: str) -> None:
    assert problem in str(load_run(write_run(tmp_path / "run", **changes)).problem)


@pytest.mark.parametrize("changes", [{"steps": -1, "tokens": 5}, {"steps": None, "tokens": 5}])
def test_a_run_without_a_number_of_steps_is_as_long_as_it_is(tmp_path: Path, write_run: WriteRun, changes: dict) -> None:
    assert load_run(write_run(tmp_path / "run", **changes)).problem is None


def test_a_torn_last_row_of_an_interrupted_run_is_no_error(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(tmp_path / "run", status="running")
    (folder / "metrics.jsonl").write_text('{"step": 1, "tok')
    assert load_run(folder).problem is not None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", None, "cannot be read"),
        ("run.json", "{", "not valid JSON"),
        ("run.json", "[]", "no JSON object"),
        ("run.json", '{"status": "finished"}', "no 'seed'"),
        ("run.json", '{"model": {}}', "no 'status'"),
        ("metrics.jsonl", None, "cannot be read"),
        ("metrics.jsonl", "", "is empty"),
        ("metrics.jsonl", '{"step": 1, "tokens": 2}\n{"step"', "line 2"),
        ("metrics.jsonl", '{"train/loss": 2.0}', "line 1 has no step"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, write_run: WriteRun, file: str, content: str | None, words: str) -> None:
    path = write_run(tmp_path / "run") / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        load_run(path.parent)
    assert str(path) in str(caught.value)


def test_loose_runs_that_would_be_the_same_are_told_apart_by_folder(tmp_path: Path, write_run: WriteRun) -> None:
    folders = [write_run(tmp_path / name) for name in ("slow", "fast")]
    other = write_run(tmp_path / "other", arm="nemotron")
    runs = name_arms([load_run(folder) for folder in [*folders, other]])
    assert [run.arm for run in runs] == ["slow", "fast", "Nemotron"]


def test_the_same_run_twice_is_refused(tmp_path: Path, write_run: WriteRun) -> None:
    run = load_run(write_run(tmp_path / "run"))
    with pytest.raises(InputError, match="give only one"):
        name_arms([run, run])


def test_only_settings_of_the_arms_count_as_differing(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [
        load_run(write_run(tmp_path / f"{arm}-{budget}-s{seed}", arm, budget, seed))
        for arm in ("ngpt", "nemotron")
        for budget in (409_600, 819_200)
        for seed in (1, 2)
    ]
    assert sorted(settings_that_differ(runs)) == [
        "model.init_args.backbone.class_path",
        "model.init_args.optimizer.init_args.lr",
        "model.init_args.optimizer.init_args.weight_decay",
    ]
    assert settings_that_differ_within(runs, "ngpt") == []


def test_a_data_seed_of_an_arms_own_and_an_absent_setting_are_seen(tmp_path: Path, write_run: WriteRun) -> None:
    first = load_run(write_run(tmp_path / "a-100-s1", settings={"data.init_args.seed": 1, "seed_everything": 1}))
    second = load_run(write_run(tmp_path / "b-100-s1", settings={"data.init_args.seed": 2, "extra": True}))
    assert settings_that_differ([first, second]) == {
        "data.init_args.seed": {"a": 1, "b": 2},
        "extra": {"a": ABSENT, "b": True},
    }


def test_runs_of_one_arm_with_other_settings_are_seen(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [load_run(write_run(tmp_path / f"a-100-s{s}", seed=s, settings={"x.lr": s, "y.seed": s})) for s in (1, 2)]
    assert settings_that_differ_within(runs, "a") == ["x.lr"]


def test_differences_pair_equal_seeds_only(tmp_path: Path, write_run: WriteRun) -> None:
    losses = {"a": {1: 2.0, 2: 2.2, 3: 9.0}, "b": {2: 2.1, 1: 2.05, 4: 0.0}}
    runs = [
        load_run(write_run(tmp_path / f"{arm}-100-s{seed}", seed=seed, loss=loss))
        for arm, by_seed in losses.items()
        for seed, loss in by_seed.items()
    ]
    interval = paired_difference(final_losses(runs), "b", "a", 100, "val/loss")
    assert interval is not None
    assert interval.n == 2
    assert interval.mean == pytest.approx(-0.025)
    assert paired_difference(final_losses(runs), "b", "a", 99, "val/loss") is None


def test_layers_are_read_off_the_metric_names(tmp_path: Path, write_run: WriteRun) -> None:
    run = load_run(write_run(tmp_path / "run", seed=1))
    last = at_the_end(layer_history([run], "eigen/attention_alpha"))
    assert last["value"].to_list() == pytest.approx([0.26, 0.31, 0.36])
    assert layer_history([run], "scale/s_z")["layer"].unique().tolist() == [0]
    assert layer_history([run], "scale/s_v").empty
    assert history([run], "val/loss")["tokens"].to_list() == [204_800, 409_600, 614_400, 819_200]


def test_every_arm_keeps_its_own_full_budget(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [load_run(write_run(tmp_path / name)) for name in ("a-100-s1", "a-200-s1", "b-100-s1")]
    assert [(run.arm, run.budget) for run in at_full_budget(runs)] == [("a", 200), ("b", 100)]
