"""A whole comparison, small: planned, trained in a pool, reported, and never done twice."""

import json
import random
from pathlib import Path

import pytest

from ngpt_lab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS, BUDGETS = 2, [1024, 2048, 4096]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    return file


def arm(model: str, *more: str) -> str:
    files = [CONFIGS / "model" / f"{model}.yaml", CONFIGS / "size" / "debug.yaml", *(CONFIGS / file for file in more)]
    return f"{model}={','.join(str(file) for file in files)}"


def command(folder: Path, corpus: Path, *more: str) -> list[str]:
    words = ["compare", "--arm", arm("ngpt"), "--arm", arm("nemotron"), "--precision", "32-true", "--rounds", "3"]
    words += ["--seeds", str(SEEDS), "--budgets", *map(str, BUDGETS), "--out", str(folder)]
    return [
        *words,
        "--set=--data.source=TextFiles",
        f"--set=--data.source.files={corpus}",
        "--set=--trainer.accelerator=cpu",
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "out"
    main(command(folder, corpus))
    return folder


def records(folder: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    return {path.parent.name: json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*/run.json"))}


def test_every_arm_budget_and_seed_is_trained_on_the_same_batches(finished: Path) -> None:
    found = records(finished)
    expected = {f"{name}-{budget}-s{seed}" for name in ("ngpt", "nemotron") for budget in BUDGETS for seed in (1, 2)}
    assert set(found) == expected
    assert all(record["status"] == "finished" for record in found.values())
    for budget in BUDGETS:
        for seed in (1, 2):
            ours, theirs = (found[f"{name}-{budget}-s{seed}"] for name in ("ngpt", "nemotron"))
            assert ours["data"] == theirs["data"]
            assert ours["tokens"] == theirs["tokens"] == budget
            assert ours["seed"] == theirs["seed"] == ours["data"]["seed"] == seed
            assert set(ours["final"]) == set(theirs["final"]) >= {"val/loss", "test/bits_per_byte"}


def test_the_summary_says_what_the_runs_say(finished: Path) -> None:
    summary, found = json.loads((finished / "summary.json").read_text()), records(finished)
    tests = {
        name: sum(found[f"{name}-4096-s{seed}"]["final"]["test/bits_per_byte"] for seed in (1, 2)) / 2
        for name in ("ngpt", "nemotron")
    }
    assert f"ngpt - nemotron = {tests['ngpt'] - tests['nemotron']:.4f} +- " in summary["claim"]
    page = (finished / "report.html").read_text()
    assert summary["claim"].split(":")[0] in page  # what follows holds a >, which the page escapes
    assert list((finished / "figures").glob("*.png"))


def test_run_again_it_trains_nothing_and_reports_the_same(
    finished: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("*")}
    assert not (finished / "compare.lock").exists()
    summary = (finished / "summary.json").read_text()
    main(command(finished, corpus))
    assert {path: path.stat().st_mtime_ns for path in (finished / "runs").rglob("*")} == before
    assert (finished / "summary.json").read_text() == summary
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"status": "running"},
        pytest.param({"status": "failed"}, marks=pytest.mark.slow),
        pytest.param({"tokens": 512}, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_finished_is_trained_again_alone(finished: Path, corpus: Path, change: dict[str, object]) -> None:
    stopped = finished / "runs" / "ngpt-1024-s1"
    record = json.loads((stopped / "run.json").read_text())
    (stopped / "run.json").write_text(json.dumps(record | change))
    before = {name: found["wall_time_s"] for name, found in records(finished).items()}
    main(command(finished, corpus))
    after = records(finished)
    assert after["ngpt-1024-s1"]["status"] == "finished"
    assert after["ngpt-1024-s1"]["tokens"] == 1024
    assert after["ngpt-1024-s1"]["final"] == record["final"]
    assert {name for name, found in after.items() if found["wall_time_s"] != before[name]} <= {"ngpt-1024-s1"}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_another_comparison_in_the_same_folder_is_refused(
    finished: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "compare.json").read_text()
    assert "another config" in refused(capsys, command(finished, corpus, "--set=--model.optimizer.lr=0.5"))
    assert (finished / "compare.json").read_text() == before


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("data: {init_args: {seq_len: 32}}", "differ in data.init_args.seq_len"),
        ("trainer: {limit_train_batches: 3}", "differ in trainer.limit_train_batches"),
        ("trainer: {gradient_clip_val: 0.5}", "differ in trainer.gradient_clip_val"),
        ("model: {init_args: {backbone: {init_args: {dims: {d_ff: 512}}}}}", "more than 2% apart"),
        ("model: {init_args: {schedule: {init_args: {length: 40}}}}", "only finished schedules are compared"),
    ],
)
def test_unfair_comparisons_are_refused(
    config: str, expected: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(config)
    arms = ["--arm", f"{arm('ngpt')},{changed}", "--arm", arm("nemotron")]
    out = tmp_path / "out"
    assert expected in refused(
        capsys, ["compare", *arms, "--out", str(out), "--set=--data.source=TextFiles", f"--set=--data.source.files={corpus}"]
    )
    assert not out.exists()


def test_a_folder_with_something_else_in_it_is_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "in use by something else" in refused(capsys, command(tmp_path, corpus))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_wrong_arms_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--arm", "ngpt"], "name=a.yaml,b.yaml"),
        (["--arm", "a=missing.yaml"], "no config file missing.yaml"),
        (["--arm", arm("ngpt"), "--arm", arm("ngpt")], "given twice"),
        (["--arm", arm("ngpt"), "--baseline", "gpt"], "not among the arms"),
        (["--seeds", "0"], "--seeds is 0: at least 1"),
        (["--workers", "0"], "--workers is 0: at least 1"),
    ):
        assert expected in refused(capsys, ["compare", "--out", str(tmp_path / "out"), *words])
