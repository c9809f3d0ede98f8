import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.report import collect_runs, write_report

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said does not hang on the drawings, which take most of the time."""
    monkeypatch.setattr("ngpt_lab.report.draw_plates", lambda *_: [])


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary with the numbers of its only condition."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    [only] = summary["conditions"]
    return summary | only | {"warnings": summary["warnings"] + only["warnings"]}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_equal_arms_cannot_be_told_apart(tmp_path: Path, write_comparison: Write) -> None:
    def scatter(arm: str, tokens: int, seed: int) -> float:
        return 2.0 - tokens / 1e6 + 0.01 * ((seed * (7 if arm == "ngpt" else 5)) % 4)

    write_report(write_comparison(tmp_path, loss=scatter))
    assert read_summary(tmp_path)["claims"]["ngpt"]["verdict"].startswith("Cannot tell")


def test_losses_that_do_not_fall_leave_the_speed_up_out(tmp_path: Path, write_comparison: Write) -> None:
    page = write_report(write_comparison(tmp_path, loss=lambda arm, tokens, seed: 2.0 + seed / 10)).read_text()
    assert "not claimed: seed 1: the baseline&#39;s finished losses do not fall" in page
    assert read_summary(tmp_path)["time_to_equal_loss"]["ngpt"]["value"] is None


def test_runs_that_did_not_finish_are_listed_and_not_used(tmp_path: Path, write_comparison: Write) -> None:
    write_comparison(tmp_path)
    edit(tmp_path / "runs" / "ngpt-819200-s3" / "run.json", status="failed", error="killed")
    shutil.rmtree(tmp_path / "runs" / "nemotron-204800-s1")
    page = write_report(tmp_path).read_text()
    summary = read_summary(tmp_path)
    assert {one["name"]: one["reason"] for one in summary["not_used"]} == {
        "nemotron-204800-s1": "it was not started",
        "ngpt-819200-s3": "its status is 'failed' (killed)",
    }
    assert summary["claims"]["ngpt"]["verdict"].startswith("No claim: 2 seeds")
    assert "ngpt-819200-s3" in page


def test_what_makes_a_comparison_unfair_is_warned_about(tmp_path: Path, write_comparison: Write) -> None:
    write_comparison(tmp_path)
    for seed in (1, 2, 3):
        record = tmp_path / "runs" / f"ngpt-819200-s{seed}" / "run.json"
        edit(record, data=json.loads(record.read_text())["data"] | {"batch_size": 4})
        edit(record, model=json.loads(record.read_text())["model"] | {"parameters": 900_000})
    shutil.copytree(tmp_path / "runs" / "ngpt-204800-s1", tmp_path / "runs" / "not-asked-for")
    write_report(tmp_path)
    warnings = " ".join(read_summary(tmp_path)["warnings"])
    assert "80% of the steps of ngpt and on 15% of those of nemotron" in warnings
    assert "ngpt has +5.39% parameters" in warnings
    assert "Not every run has the same data." in warnings
    assert "nemotron: not tuned. ngpt: not tuned." in warnings


def test_search_rows_in_the_folder_say_what_was_tuned(tmp_path: Path, write_comparison: Write) -> None:
    key = "model.init_args.optimizer.init_args.lr"
    rows = [f"ngpt,{lr},819200,{loss},{lr}" for lr, loss in ((0.002, 2.1), (0.004, 2.0), (0.008, 2.2))]
    (write_comparison(tmp_path) / "tuning.csv").write_text("\n".join([f"arm,lr,budget,val_loss,{key}", *rows]))
    write_report(tmp_path)
    arms = read_summary(tmp_path)["arms"]
    assert arms["ngpt"]["tuning"]["819200"].startswith("tuned: best of 3 trials")
    assert arms["ngpt"]["tuning"]["204800"].startswith("tuned at another budget")
    assert set(arms["nemotron"]["tuning"].values()) == {"not tuned"}


def test_every_other_arm_is_compared_with_the_baseline(tmp_path: Path, write_comparison: Write) -> None:
    page = write_report(write_comparison(tmp_path, arms=("a<b", "nemotron", "ngpt"), baseline="ngpt")).read_text()
    summary = read_summary(tmp_path)
    assert list(summary["claims"]) == summary["candidates"] == ["a<b", "nemotron"]
    assert "a&lt;b - ngpt = " in page
    assert "a<b" not in page


def test_loose_runs_of_one_arm_make_a_report_without_a_comparison(tmp_path: Path, write_run: Write) -> None:
    folders = [write_run(tmp_path / f"run{seed}", seed=seed) for seed in (1, 2)]
    page = write_report(tmp_path / "out", collect_runs(folders), command="ngpt-lab report run1 run2").read_text()
    assert "Runs of NGPT" in page
    assert "ngpt-lab report run1 run2" in page
    assert "Differences" not in page
    assert read_summary(tmp_path / "out")["claims"] == {}


def test_loose_runs_without_a_test_split_make_no_claim(tmp_path: Path, write_run: Write) -> None:
    final = {"val/loss": 1.5, "val/bits_per_byte": 2.1}
    folders = [write_run(tmp_path / arm, arm=arm, final=final) for arm in ("ngpt", "nemotron")]
    write_report(tmp_path / "out", collect_runs(folders))
    summary = read_summary(tmp_path / "out")
    assert (summary["baseline"], summary["candidates"]) == ("Nemotron", ["NGPT"])
    assert summary["claims"]["NGPT"]["verdict"].startswith("No claim")


def test_a_comparison_folder_and_a_loose_run_go_into_one_report(
    tmp_path: Path, write_comparison: Write, write_run: Write
) -> None:
    write_comparison(tmp_path / "comparison")
    write_run(tmp_path / "loose", seed=9)
    runs = collect_runs([tmp_path / "comparison", tmp_path / "loose"])
    write_report(tmp_path / "out", runs, baseline="ngpt")
    assert read_summary(tmp_path / "out")["candidates"] == ["nemotron", "NGPT"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("compare.json", "{}", "no 'arms'"),
        ("compare.json", "{", "not valid JSON"),
        ("step_cost.json", "{}", "same number of rounds"),
        ("step_cost.json", '{"arms": {"a": {"seconds": [1]}, "b": {"seconds": [1, 2]}}}', "same number of rounds"),
        ("step_cost.json", '{"arms": ["ngpt"]}', "same number of rounds"),
        ("tuning.csv", "", "CSV"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(
    tmp_path: Path, write_comparison: Write, file: str, content: str, words: str
) -> None:
    (write_comparison(tmp_path) / file).write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        write_report(tmp_path)
    assert str(tmp_path / file) in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_nothing_finished_is_nothing_to_report(tmp_path: Path, write_comparison: Write, write_run: Write) -> None:
    shutil.rmtree(write_comparison(tmp_path) / "runs")
    with pytest.raises(InputError, match=r"no finished run to report on \(ngpt-204800-s1: it was not started"):
        write_report(tmp_path)
    run = write_run(tmp_path / "run", status="running")
    with pytest.raises(InputError, match="'running'"):
        write_report(tmp_path / "out", collect_runs([run]))
    with pytest.raises(InputError, match="no arm 'gpt'"):
        write_report(tmp_path / "out", collect_runs([run]), baseline="gpt")


def test_two_runs_of_one_seed_are_refused(tmp_path: Path, write_comparison: Write) -> None:
    edit(write_comparison(tmp_path) / "runs" / "ngpt-819200-s3" / "run.json", seed=2)
    with pytest.raises(InputError, match="both ngpt, 819200 tokens, seed 2"):
        write_report(tmp_path)


def test_without_a_finished_baseline_there_is_no_comparison(tmp_path: Path, write_comparison: Write) -> None:
    write_comparison(tmp_path)
    for run in (tmp_path / "runs").glob("nemotron-*"):
        shutil.rmtree(run)
    with pytest.raises(InputError, match="the baseline nemotron has no finished run"):
        write_report(tmp_path)
