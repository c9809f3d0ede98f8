"""`ngpt-lab eval`, from a run's folder to the numbers beside it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from neighbours import of

import ngpt_lab.hf  # noqa: F401  (registers its classes)
from ngpt_lab.cli import main as ngpt_lab_main
from ngpt_lab.errors import InputError
from ngpt_lab.evaluation import harness
from ngpt_lab.evaluation.command import main
from ngpt_lab.evaluation.tasks import load_tasks
from ngpt_lab.interop.export_command import main as export_main
from ngpt_lab.interop.trained import load_trained

ROOT = Path(__file__).parents[2]
ARMS = ("ngpt", "nemotron")
Train = Callable[..., Path]


train = of("analysis").train
TASKS, write_task = of("evaluation").TASKS, of("evaluation").write_task


@pytest.fixture(scope="module")
def runs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("runs")
    return {arm: train(at / arm, ROOT / "configs" / "model" / f"{arm}.yaml") for arm in ARMS}


@pytest.fixture
def run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run, to be evaluated or damaged."""
    return copy(runs["ngpt"], tmp_path / "a-run")


def copy(run: Path, target: Path) -> Path:
    return Path(shutil.copytree(run, target))


def results(run: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((run / "eval").iterdir())]


def begin_texts(run: Path) -> None:
    """Let the run's tokenizer put the token of byte 1 before each text."""
    file, config = (run / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json"))
    described = json.loads(file.read_text())
    [begin] = [token for token, number in described["model"]["vocab"].items() if number == 1]
    described["added_tokens"] += [{**described["added_tokens"][0], "id": 1, "content": begin}]
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    described["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, first],
        "pair": [first, second],
        "special_tokens": {begin: {"id": begin, "ids": [1], "tokens": [begin]}},
    }
    file.write_text(json.dumps(described))
    config.write_text(json.dumps({**json.loads(config.read_text()), "bos_token": begin}))


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_tasks_have_the_scores_that_the_hf_model_has_on_the_exported_folder(
    arm: str, begins: bool, runs: dict[str, Path], tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names, run = ["choosing", "guessing", "reading", "writing"], copy(runs[arm], tmp_path / "a-run")
    if begins:
        begin_texts(run)
    assert (harness.tokenizer_for(load_trained(run), tmp_path)("one").input_ids[0] == 1) == begins
    main([str(run), "--tasks", ",".join(names), "--include_path", str(tasks), "--device=cpu", "--num_fewshot=1"])
    out = capsys.readouterr().out
    export_main([str(run), str(tmp_path / "exported")])
    lm = HFLM(pretrained=str(tmp_path / "exported"), device="cpu", batch_size=8)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    expected = simple_evaluate(model=lm, tasks=names, task_manager=manager, num_fewshot=1, log_samples=False)["results"]
    [record] = results(run)
    assert record["settings"]["max_length"] == lm.max_length == 64
    assert record["settings"]["softmax_dtype"] == "float32"
    assert record["checkpoint"] == {"run": "a-run", "file": "last.ckpt", "step": 6}
    assert record["versions"]["lm-eval"]
    count = 0
    for name in names:
        task = record["results"]["tasks"][name]
        assert (task["version"], task["n"], task["num_fewshot"]) == (3.0, expected[name]["sample_len"], 1)
        for metric in task["metrics"]:
            count += 1
            assert metric["value"] == pytest.approx(expected[name][f"{metric['metric']},none"], rel=1e-5)
            error = expected[name][f"{metric['metric']}_stderr,none"]
            assert metric["stderr"] == (None if error == "N/A" else pytest.approx(error, rel=1e-4))
    assert count == 8
    assert all(told in out for told in ("choosing", "bits_per_byte (lower is better)", "eval/choosing+guessing"))


def test_the_loss_by_length_is_that_of_the_run_at_its_own_length(run: Path, capsys: pytest.CaptureFixture[str]):
    main([str(run / "checkpoints" / "step-000003.ckpt"), "--context_lengths", "64,16, 256", "--windows=5", "--device=cpu"])
    [record] = results(run)
    found = record["results"]
    assert record["checkpoint"] == {"run": "a-run", "file": "step-000003.ckpt", "step": 3}
    assert [row["length"] for row in found["lengths"]] == [16, 64, 256]
    assert (found["trained_length"], found["change_from"], found["scored_tokens"]) == (64, 64, 8)
    assert found["data"]["same_as_in_training"] is True
    for row in found["lengths"]:
        assert row["low"] < row["loss"] < row["high"]
        assert row["bits_per_byte"] == pytest.approx(row["loss"] / math.log(2))  # a token is a byte
        assert row["change"] == pytest.approx(row["loss"] - found["lengths"][1]["loss"])
    out = capsys.readouterr().out
    assert "256 *" in out
    assert "64 *" not in out


def test_a_text_of_ones_own_is_read_where_the_run_has_none(run: Path, tmp_path: Path):
    text = tmp_path / "mine.txt"
    text.write_text("the norm of a vector on the sphere is one\n" * 9)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({name: own for name, own in config.items() if name != "data"}))
    with pytest.raises(InputError, match="was imported and has no data of its own: name a text to read with --text"):
        main([str(run), "--context_lengths=16"])
    main([str(run), "--context_lengths=16", "--windows=2", "--text", str(text), "--json", str(tmp_path / "copy.json")])
    [record] = results(run)
    assert record == json.loads((tmp_path / "copy.json").read_text())
    assert record["results"]["data"]["tokens"] == text.stat().st_size


def test_other_settings_or_weights_are_other_files_and_the_same_again_is_the_same(run: Path, tasks: Path):
    main([str(run), "--tasks", str(tasks / "guessing.yaml"), "--limit=2"])
    [of_task] = results(run)
    assert [(own["n"], own["n_of"]) for own in of_task["results"]["tasks"].values()] == [(2, 3)]
    for words in ([run], [run, "--windows=2"], [run, "--dtype=bfloat16"], [run], [run / "checkpoints" / "step-000003.ckpt"]):
        main(["--context_lengths=16", "--windows=3", *map(str, words)])
    records = [record for record in results(run) if record != of_task]
    assert len(records) == 4
    assert {(record["checkpoint"]["step"], record["settings"]["windows"]) for record in records} == {(3, 3), (6, 2), (6, 3)}


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        ngpt_lab_main(["eval", *map(str, words)])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    return told[-1].removeprefix("ngpt-lab: ")


def test_bad_input_is_refused_in_one_sentence(run: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "broken.yaml").write_text("task: [")
    (tmp_path / "list.yaml").write_text("- task")
    (tmp_path / "nameless.yaml").write_text("output_type: loglikelihood")
    (tmp_path / "latin.txt").write_bytes("sphère".encode("latin-1"))
    beams = {**TASKS["writing"]["generation_kwargs"], "num_beams": 2}
    write_task(tmp_path, "beams", {**TASKS["writing"], "generation_kwargs": beams}, [{"text": "one"}])
    told = {
        (): "nothing to evaluate: give --tasks, --context_lengths or both",
        ("--tasks=writing", "--limit=0"): "--limit is 0: it must be a number above 0",
        ("--tasks=writing", "--limit=inf"): "--limit is inf: it must be a number above 0",
        ("--tasks=writing", "--text=some.txt"): "--text says something of --context_lengths alone, which is not given",
        ("--tasks=writing", "--windows=32"): "--windows says something of --context_lengths alone",
        ("--context_lengths=9", "--num_fewshot=0"): "--num_fewshot says something of --tasks alone",
        ("--context_lengths=9", "--batch_size=8"): "--batch_size says something of --tasks alone",
        ("--context_lengths=9", "--device=meta"): "--device meta cannot be used",
        ("--context_lengths=9", f"--text={tmp_path / 'latin.txt'}"): "latin.txt is not UTF-8 ('utf-8' codec can't decode byte",
        (
            "--tasks",
            tasks / "writing.yaml",
            "--context_lengths=9",
            f"--text={tmp_path / 'latin.txt'}",
        ): "latin.txt is not UTF-8",
        ("--context_lengths=9", f"--json={tmp_path}"): "cannot be written: it is a folder",
        ("--context_lengths=9", f"--json={tmp_path / 'list.yaml' / 'a.json'}"): "list.yaml is no folder that takes files",
        ("--tasks", tasks / "choosing.yaml", "--num_fewshot=100"): "the tasks cannot be carried out: ValueError: Sample larger",
        ("--tasks", tmp_path / "beams.yaml"): "beams: a task asks to generate with num_beams, which is not known here",
        ("--tasks=writing", "--batch_size=0"): "--batch_size is 0: it must be at least 1",
        ("--context_lengths=1,2",): "--context_lengths is 1,2: give whole numbers of at least 2",
        ("--context_lengths=9999",): "has 6301 tokens and length 9999 needs one more",
        ("--context_lengths=9", "--device=nowhere"): "--device nowhere cannot be used",
        ("--context_lengths=9", f"--text={tmp_path / 'gone.txt'}"): "gone.txt cannot be read",
        ("--tasks", tmp_path / "broken.yaml"): "broken.yaml is not a YAML file",
        ("--tasks", tmp_path / "list.yaml"): "list.yaml is not a task file: it holds no keys",
        ("--tasks", tmp_path / "nameless.yaml"): "nameless.yaml describes no task",
        ("--tasks", tmp_path / "gone.yaml"): "gone.yaml cannot be read",
        ("--tasks=writing", "--include_path", tmp_path): "broken.yaml is not a YAML file",
        ("--tasks=writing", "--include_path", tmp_path / "gone"): "there is no task file or folder of task files",
        ("--tasks=writing", "--include_path", tasks, "--max_length=12"): "writing: a task asks for 12 new",
    }
    for words, expected in told.items():
        assert expected in refusal(capsys, run, *words)
    assert not (run / "eval").exists()


def test_a_task_nobody_has_is_refused_with_what_is_called_alike(tasks: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def quick(include_path: Path, include_defaults: bool) -> TaskManager:
        asked.append(include_defaults)
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", quick)  # all that there are take half a minute to read
    with pytest.raises(InputError, match=r"has no task 'guesing', and no file that was given .*: did you mean guessing"):
        load_tasks(["guesing"], tasks)
    load_tasks(["guess*"], tasks)
    load_tasks(["guessing"], tasks)
    assert asked == [True, True, False]


def test_a_dataset_that_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    described = "task: far\ndataset_path: nobody/has-this\noutput_type: loglikelihood\ntest_split: test\n"
    (tmp_path / "far.yaml").write_text(described)
    with pytest.raises(InputError, match=r"the data of task far cannot be had: .*nobody/has-this") as refused:
        load_tasks(["far"], tmp_path / "far.yaml")
    assert "\n" not in str(refused.value)


def test_a_task_that_the_harness_cannot_set_up_is_refused(tmp_path: Path):
    (tmp_path / "odd.yaml").write_text("task: odd\noutput_type: dreaming\n")
    with pytest.raises(InputError, match=r"task .*odd\.yaml cannot be set up: "):
        load_tasks([str(tmp_path / "odd.yaml")])


def test_a_template_that_does_not_fit_all_of_its_data_is_refused(run: Path, tmp_path: Path):
    write_task(tmp_path, "holed", TASKS["guessing"], [{"text": "one two"}, {"words": "three four"}])
    with pytest.raises(InputError, match="a template of a task does not fit its data: 'None' has no attribute 'split'"):
        main([str(run), "--tasks", str(tmp_path / "holed.yaml")])


def test_as_much_is_read_at_once_as_in_training_or_as_the_imported_config_says(run: Path, runs: dict[str, Path]):
    trained = load_trained(run)
    assert harness.length_read(trained) == 64
    imported = replace(trained, settings={})
    (run / "run.json").write_text(json.dumps({"source": {"config": {"max_position_embeddings": 4096}}}))
    assert harness.length_read(imported) == 4096
    (run / "run.json").write_text(json.dumps({"source": {"config": {}}}))
    assert harness.length_read(imported) == 8192  # what the classes have that `hf` would load
    assert harness.length_read(replace(load_trained(runs["nemotron"]), settings={}, folder=run)) == 4096


def test_a_loss_that_is_not_finite_is_told_and_written_as_none(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = load_trained(run)
    broken.decoder.embedding.weight.data.fill_(math.nan)
    monkeypatch.setattr("ngpt_lab.interop.trained.load_trained", lambda path, dtype: broken)
    main([str(run), "--context_lengths=16", "--windows=2"])
    [row] = [line for line in capsys.readouterr().out.splitlines() if " 16 " in line and "at 16" not in line]
    assert row.count(" - ") == 4
    [record] = results(run)
    assert record["results"]["lengths"][0]["loss"] is None


def test_what_the_imported_folder_says_ends_a_text_ends_it(run: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(harness, "check_generation", lambda lm, loaded: seen.append(lm.stop))
    monkeypatch.setattr(harness, "results", lambda *_: {"tasks": {}, "groups": {}})
    for said in ({}, {"eos_token_id": [32, 0]}):
        (run / "generation_config.json").write_text(json.dumps(said))
        main([str(run), "--tasks", str(tasks / "writing.yaml")])
    assert seen == [{0}, {0, 32}]


def test_a_tokenizer_that_asks_for_code_of_its_own_is_refused_in_one_line(
    run: Path, tasks: Path, capsys: pytest.CaptureFixture[str]
):
    config = run / "tokenizer" / "tokenizer_config.json"
    asks = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": [None, "evil.Tok"]}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **asks}))
    told = refusal(capsys, run, "--tasks", tasks / "writing.yaml")
    assert "tokenizer holds no tokenizer that transformers can read: " in told
    assert "contains custom code" in told


def test_a_run_of_a_task_has_nothing_to_say_here(run: Path, monkeypatch: pytest.MonkeyPatch):
    headless = load_trained(run)
    headless.decoder.take_head()
    monkeypatch.setattr("ngpt_lab.interop.trained.load_trained", lambda path, dtype: headless)
    with pytest.raises(InputError, match="was trained for a task and has no language-model head"):
        main([str(run), "--context_lengths=16"])


def test_tasks_need_the_extra_and_a_tokenizer(
    run: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = (run, "--tasks=writing", "--include_path", tasks)
    config = run / "config.yaml"
    shutil.rmtree(run / "tokenizer")
    config.write_text(config.read_text().replace("  class_path: ngpt_lab.data.TextDataModule", "  class_path: Other"))
    assert "has no tokenizer, and its tokens are not there to tell" in refusal(capsys, *asked)
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    assert refusal(capsys, *asked) == "tasks need lm_eval, which is not installed: pip install 'ngpt-lab[eval]'"
