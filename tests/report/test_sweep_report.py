"""The report of a sweep folder: every planned run is accounted for, arms are compared within one condition."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from ngpt_lab.analysis import tables_command
from ngpt_lab.errors import InputError
from ngpt_lab.report import collect_runs, write_report
from ngpt_lab.report.ablations import SHOWN, effects, most_telling
from ngpt_lab.report.comparison import Comparison, compare
from ngpt_lab.report.plates import draw_plates, draw_search
from ngpt_lab.report.summary import build_summary
from ngpt_lab.report.tuning import chosen_inside
from ngpt_lab.sweep.results import write_results

Write = Callable[..., Path]
EFFECTS = {"nemotron": 0.0, "ngpt": -0.06, "ngpt-slerp": -0.12, "ngpt-none": 0.001, "ngpt-bad": 0.09}
LENGTHS = ({"data.init_args.seq_len": 256}, {"data.init_args.seq_len": 512})
BUDGETS = (204_800, 409_600, 819_200)
HOSTILE = "ngpt-<b>\"x'&"


def read(folder: Path) -> Comparison:
    return compare(collect_runs([folder]), folder)


def summary_of(folder: Path) -> dict[str, Any]:
    comparison = read(folder)
    return build_summary(comparison, effects(comparison))


def run_of(folder: Path, name: str) -> Path:
    [run] = (folder / "runs").glob(f"{name}-????????")
    return run


def edit(run: Path, **changes: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | changes))


def test_known_effects_are_found_sorted_and_corrected(tmp_path: Path, write_sweep: Write) -> None:
    summary = summary_of(write_sweep(tmp_path, EFFECTS))
    [only] = summary["conditions"]
    found = only["effects"]
    assert list(found) == ["ngpt-slerp", "ngpt", "ngpt-none", "ngpt-bad"]
    assert {arm: row["significant"] for arm, row in found.items()} == {
        "ngpt-slerp": True,
        "ngpt": True,
        "ngpt-none": False,
        "ngpt-bad": True,
    }
    assert all(row["p_holm"] >= row["p"] for row in found.values())
    assert found["ngpt"]["effect"] == pytest.approx(-0.06 / 0.6931, abs=0.01)
    assert found["ngpt-none"]["verdict"].startswith("no difference found (a difference of ")
    assert only["overview"] == (
        "3 of 4 tested arms differ from nemotron in test loss after Holm's correction; "
        f"better: ngpt-slerp ({found['ngpt-slerp']['effect']:+.4f}), ngpt ({found['ngpt']['effect']:+.4f}); "
        f"worse: ngpt-bad ({found['ngpt-bad']['effect']:+.4f}); no difference was shown (in brackets the smallest "
        f"that would have been, in 80% of such tables): ngpt-none ({found['ngpt-none']['detectable']:.4f})."
    )
    assert summary["claim"].startswith(only["overview"])


def test_an_interval_without_zero_is_no_claim_when_holm_says_no(tmp_path: Path, write_sweep: Write) -> None:
    arms = {"nemotron": 0.0, "ngpt": -0.5} | {f"ngpt-{k}": 0.03 for k in range(30)}
    found = summary_of(write_sweep(tmp_path, arms, budgets=(409_600,)))["conditions"][0]
    [doubtful, *_] = [
        arm for arm, row in found["effects"].items() if row["low"] > 0 and not row["significant"] and row["p"] < 0.05
    ]
    verdict = found["claims"][doubtful]["verdict"]
    assert verdict.startswith(f"Cannot tell {doubtful} from nemotron: the interval leaves 0 out, but among 31 comparisons")
    assert f"only a difference of {found['effects'][doubtful]['detectable']:.4f} bits per byte or more would have" in verdict


def test_arms_that_were_not_tested_are_not_counted_among_those_without_a_difference(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, EFFECTS, budgets=(409_600,))
    for name in ("ngpt-none-409600-s3", "ngpt-bad-409600-s1", "ngpt-bad-409600-s2"):
        shutil.rmtree(run_of(folder, name))
    edit(run_of(folder, "ngpt-bad-409600-s3"), seed=9)
    told = summary_of(folder)["conditions"][0]["overview"]
    assert told.startswith("2 of 2 tested arms differ from nemotron")
    assert "no difference" not in told
    assert told.endswith(
        "; not tested for want of 3 seeds: ngpt-none; not tested, as they share no seed with nemotron: ngpt-bad."
    )


def test_conditions_are_kept_apart(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, LENGTHS)
    for run in (folder / "runs").glob("ngpt-512-*"):
        record = json.loads((run / "run.json").read_text())
        edit(run, final={key: value + 1 for key, value in record["final"].items()})
    summary = summary_of(folder)
    short, long = summary["conditions"]
    assert (short["condition"], long["condition"]) == ("seq_len=256", "seq_len=512")
    assert short["effects"]["ngpt"]["effect"] < -0.05 < 0.9 < long["effects"]["ngpt"]["effect"]
    assert [line.partition(":")[0] for line in summary["claim"].splitlines()] == ["seq_len=256", "seq_len=512"]


def test_a_condition_without_its_baseline_compares_nothing_and_says_so(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, LENGTHS, budgets=(409_600,))
    for run in (folder / "runs").glob("nemotron-512-*"):
        shutil.rmtree(run)
    page = write_report(folder).read_text()
    _, long = json.loads((folder / "summary.json").read_text())["conditions"]
    assert (long["candidates"], long["claims"]) == ([], {})
    assert "The baseline nemotron has no finished run here, so nothing is compared." in page


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("fingerprint", "another", "the text (its fingerprint): feed5eed and another"),
        ("tokenizer", "words", "the tokenizer: bytes and words"),
        ("vocab_size", 512, "the vocabulary's size: 256 and 512"),
        ("seq_len", 128, "seq_len: 64 and 128"),
        ("eval_windows", 8, "the number of evaluation windows: 256 and 8"),
    ],
)
def test_runs_of_different_data_are_refused(tmp_path: Path, write_run: Write, entry: str, value: object, words: str) -> None:
    data = {"fingerprint": "feed5eed", "tokenizer": "bytes", "vocab_size": 256, "seq_len": 64, "eval_windows": 256}
    ours = write_run(tmp_path / "ours", data=data | {"seed": 1})
    theirs = write_run(tmp_path / "theirs", "nemotron", data=data | {"seed": 2, entry: value})
    with pytest.raises(InputError) as caught:
        compare(collect_runs([ours, theirs]), tmp_path)
    assert str(caught.value).startswith(f"{ours} and {theirs} differ in {words}: ")


def test_another_order_of_the_data_is_no_other_data(tmp_path: Path, write_run: Write) -> None:
    runs = [
        write_run(tmp_path / arm, arm, data={"fingerprint": "one", "seed": k}) for k, arm in enumerate(("ngpt", "nemotron"))
    ]
    assert compare(collect_runs(runs), tmp_path).arms == ("Nemotron", "NGPT")


def test_every_planned_run_is_accounted_for(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, seeds=range(1, 10), budgets=(409_600,))
    runs = {seed: run_of(folder, f"ngpt-409600-s{seed}") for seed in range(1, 10)}
    (runs[1] / "run.json").write_text('{"status": "fini')
    rows = (runs[2] / "metrics.jsonl").read_text()
    (runs[2] / "metrics.jsonl").write_text(rows[: len(rows) // 2])
    edit(runs[3], status="failed", error="OutOfMemoryError: <none> left")
    edit(runs[4], status="running", final=None, tokens=2048)
    shutil.rmtree(runs[5])
    (runs[6] / "run.json").write_text('{"status": "failed", "error": "killed by signal 9"}')
    page = write_report(folder).read_text()
    summary = json.loads((folder / "summary.json").read_text())
    left_out = {one["name"]: (one["state"], one["reason"]) for one in summary["not_used"]}
    assert {runs[seed].name: state for seed, state in enumerate(STATES, start=1)} == {
        name: state for name, (state, _) in left_out.items()
    }
    assert f"{runs[1] / 'run.json'} is not valid JSON" in left_out[runs[1].name][1]
    assert f"{runs[2] / 'metrics.jsonl'}, line " in left_out[runs[2].name][1]
    assert left_out[runs[6].name][1] == "its status is 'failed' (killed by signal 9)"
    assert all(name in page for name in left_out)
    assert summary["conditions"][0]["arms"]["ngpt"]["seeds"] == [7, 8, 9]
    # The baseline's, those used, and those left out whose record can still be read.
    assert summary["cost"]["total"]["runs"] == 9 + 3 + 4
    table = (folder / "tables" / "left_out.md").read_text()
    assert all(name in table for name in left_out)


STATES = ("half-written", "half-written", "failed", "interrupted", "missing", "failed")


def test_trials_are_no_arms_and_say_how_the_settings_were_chosen(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(
        tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, budgets=(409_600,), tried={0.002: 0.1, 0.004: 0.0, 0.008: 0.05}
    )
    broken = run_of(folder, "tune-ngpt-409600-0.008-s101")
    edit(broken, status="failed", error="the loss is not finite", final={"val/loss": None})
    write_results(folder)
    comparison = read(folder)
    summary = build_summary(comparison, effects(comparison))
    [only] = summary["conditions"]
    assert (only["candidates"], len(comparison.runs), len(comparison.trials)) == (["ngpt"], 6, 6)
    assert chosen_inside(only["arms"]["ngpt"]["tuning"]["409600"])
    # The runs of the baseline were trained at another rate than any that was tried.
    assert only["arms"]["nemotron"]["tuning"]["409600"] == "not tuned: the settings match no trial of the search"
    [plate] = draw_search(comparison.conditions[0], comparison.searched)
    assert plate.path == "learning-rates"
    assert {row["purpose"]: row["runs"] for row in summary["cost"]["rows"] if row["arm"] == "ngpt"} == {"used": 3, "search": 3}


def test_an_arm_that_was_not_searched_has_its_bases_choice(tmp_path: Path, write_sweep: Write) -> None:
    tried = {0.002: 0.1, 0.004: 0.0, 0.008: 0.05}
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06, "ngpt-slerp": -0.1}, budgets=(409_600,), tried=tried)
    plan = json.loads((folder / "sweep.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if (run["stage"], run["arm"]) != ("tune", "ngpt-slerp")]
    (folder / "sweep.json").write_text(json.dumps(plan))
    write_results(folder)
    status = summary_of(folder)["conditions"][0]["arms"]["ngpt-slerp"]["tuning"]["409600"]
    assert status.startswith("tuned: best of 3 trials")
    assert status.endswith("(the search of ngpt)")


def test_of_many_arms_figures_of_lines_show_the_most_telling(tmp_path: Path, write_sweep: Write) -> None:
    arms = {"nemotron": 0.0} | {f"ngpt-{k}": -0.01 * k for k in range(1, 9)}
    comparison = read(write_sweep(tmp_path, arms, budgets=(409_600,)))
    [only], table = comparison.conditions, effects(comparison)
    assert list(most_telling(only, table)) == ["nemotron", *(f"ngpt-{k}" for k in range(4, 9))]
    plates = {plate.path: plate for plate in draw_plates(only, comparison.metric, table)}
    labels = plates["loss-curves"].figure.axes[0].get_legend_handles_labels()[1]
    assert len(labels) == SHOWN
    assert "Of 9 arms, nemotron and the 5 that differ most from it" in plates["loss-curves"].caption
    names = {text.get_text() for text in plates["effects"].figure.axes[0].get_yticklabels()}
    assert names == set(arms) - {"nemotron"}


def test_a_step_measured_under_one_condition_counts_there_alone(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, LENGTHS, budgets=(409_600,))
    seconds = {"nemotron": {"seconds": [1.0, 1.0]}, "ngpt": {"seconds": [1.5, 1.5]}}
    (folder / "step_cost.json").write_text(json.dumps({"conditions": [{"arms": seconds, "condition": LENGTHS[1]}]}))
    short, long = summary_of(folder)["conditions"]
    assert short["step_cost"] is None
    assert long["step_cost"]["ratios"]["ngpt"]["value"] == 1.5


def test_each_condition_of_a_sweep_has_its_own_baseline_and_seconds_in_every_table(
    tmp_path: Path, write_sweep: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}, LENGTHS, budgets=BUDGETS)
    for run in (folder / "runs").glob("*-512-*"):  # both arms: what a condition does to the loss is no difference of arms
        record = json.loads((run / "run.json").read_text())
        edit(run, final={key: value + 1 for key, value in record["final"].items()})
    costs = [
        {"condition": condition, "arms": {"nemotron": {"seconds": [1.0, 1.0]}, "ngpt": {"seconds": [ratio, ratio]}}}
        for condition, ratio in zip(LENGTHS, (1.0, 2.0), strict=True)
    ]
    (folder / "step_cost.json").write_text(json.dumps({"conditions": costs}))
    write_report(folder)
    write_results(folder)
    tables_command.main([str(folder / "results.csv")])
    written = {name: (folder / "tables" / f"{name}.md").read_text() for name in ("ablations", "equal_loss")}
    printed = capsys.readouterr().out
    assert all(table.strip() in printed for table in written.values())
    short, long = (rows_by_heading(written["equal_loss"], f"seq_len={length}") for length in (256, 512))
    assert float(short["tokens"]) > 1
    assert short["seconds"] == short["tokens"]
    assert float(long["seconds"]) == pytest.approx(float(long["tokens"]) / 2, abs=0.01)
    for length in (256, 512):
        assert -0.15 < float(rows_by_heading(written["ablations"], f"seq_len={length}", "ngpt")["effect"]) < -0.05


def rows_by_heading(table: str, condition: str, arm: str = "ngpt") -> dict[str, str]:
    """The row of a Markdown table for a condition and an arm."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]
    [found] = [line for line in lines if [cell.replace("\\", "") for cell in line[:2]] == [condition, arm]]
    return dict(zip(lines[0], found, strict=True))


class Tags(HTMLParser):
    """Which tags a page has, and what its attributes load or link."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_names_cannot_break_the_page_and_no_request_leaves_it(tmp_path: Path, write_sweep: Write) -> None:
    folder = write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06, HOSTILE: -0.1}, LENGTHS, budgets=(409_600,))
    for run in (folder / "runs").glob("ngpt-_b*-s1-*"):
        edit(run, status="failed", error="<script>alert(1)</script> http://elsewhere")
    page = write_report(folder).read_text()
    found = Tags()
    found.feed(page)
    assert found.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert "<b>\"x'&" not in page
    assert "ngpt-&lt;b&gt;&#34;x&#39;&amp;" in page
    assert found.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in found.addresses)
    assert not re.search(r"@import|url\(", page)
    drawings = list((folder / "figures").rglob("*.svg"))
    assert any(HOSTILE in (text.text or "") for path in drawings for text in ElementTree.parse(path).iter())


def test_what_the_plan_asks_for_must_be_there(tmp_path: Path, write_sweep: Write) -> None:
    path = write_sweep(tmp_path, {"nemotron": 0.0}, budgets=(409_600,)) / "sweep.json"
    plan = json.loads(path.read_text())
    for changes, words in (
        ({"runs": None}, "no 'runs'"),
        ({"runs": [{}]}, "no 'folder'"),
        ({"metric": "val/joy"}, "'val/joy'"),
    ):
        path.write_text(json.dumps(plan | changes))
        with pytest.raises(InputError, match=words):
            read(tmp_path)


def test_sweeps_comparisons_and_loose_runs_go_into_one_report(
    tmp_path: Path, write_sweep: Write, write_comparison: Write, write_run: Write
) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"nemotron": 0.0, "ngpt-slerp": -0.06})
    missing = run_of(sweep, "ngpt-slerp-409600-s1")
    shutil.rmtree(missing)
    folders = [sweep, write_comparison(tmp_path / "comparison", arms=("ngpt",)), write_run(tmp_path / "loose", seed=9)]
    comparison = compare(collect_runs(folders), tmp_path)
    assert comparison.arms == ("nemotron", "ngpt-slerp", "ngpt", "NGPT")
    assert {one.name for one in comparison.unused} == {missing.name}
    assert isinstance(effects(comparison), pd.DataFrame)
