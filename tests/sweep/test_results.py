"""results.csv and tuning.csv say what the runs left, exactly, whatever state they are in."""

import csv
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ngpt_lab.analysis.columns import FINAL
from ngpt_lab.errors import InputError
from ngpt_lab.sweep import results
from ngpt_lab.sweep.results import write_results

_spec = importlib.util.spec_from_file_location("sweep_folders", Path(__file__).parent / "sweep_folders.py")
assert _spec is not None
assert _spec.loader is not None
folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(folders)

LR, WARMUP, LENGTH = (
    "model.init_args.optimizer.init_args.lr",
    "model.init_args.schedule.init_args.warmup",
    "data.init_args.seq_len",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(list('",\n\r;=[]<>')), min_size=1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def later(path: Path, seconds: float) -> None:
    """As if the file had been written at another time."""
    os.utime(path, (time.time() + seconds,) * 2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, error=TEXT, arm=TEXT, final=st.fixed_dictionaries(dict.fromkeys(FINAL, FLOAT)), rate=FLOAT)
def test_every_cell_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, error: str, arm: str, final: dict[str, float], rate: float
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    planned = [folders.planned("a", name=name, arm=arm, trial={LR: rate}), folders.planned("b", condition={LENGTH: 256})]
    folders.write_sweep(folder, planned)
    folders.write_run(folder, planned[0], final=final)
    folders.write_run(folder, planned[1], status="failed", error=error, settings={LR: rate})
    for _ in range(2):  # read from the runs, then taken over from the file
        first, second = rows_of(write_results(folder))
        assert (first["name"], first["arm"]) == tuple(text.replace("\r\n", "\n").replace("\r", "\n") for text in (name, arm))
        assert {key: float(first[key]) for key in FINAL} == final
        assert second["error"] == error.replace("\r\n", "\n").replace("\r", "\n")
        assert (second["status"], second["val/loss"], second["condition"]) == ("failed", "", "seq_len=256")
        assert float(first[LR]) == float(second[LR]) == rate
        later(folder / "results.csv", 10)


def test_a_finished_row_holds_the_end_of_the_run(tmp_path: Path) -> None:
    run = folders.planned("a", steps=40, budget=4000)
    folders.write_sweep(tmp_path, [run])
    scales = {"eigen/attention_alpha/00/mean_abs": 0.25, "eigen/attention_alpha/01/mean_abs": 0.5, "scale/s_z/mean_abs": 8.0}
    losses = {step: 1 / step for step in range(1, 41)}
    folders.write_run(tmp_path, run, losses=losses, last={"train/clipped_share": 0.125, **scales}, final={"val/loss": 1.5})
    [row] = rows_of(write_results(tmp_path))
    assert float(row["train/loss"]) == math.fsum(losses[step] for step in (37, 38, 39, 40)) / 4
    assert [row[key] for key in ("status", "tokens", "steps", "clipped_share", "val/loss", "test/loss")] == [
        *("finished", "4000", "40", "0.125", "1.5", "")
    ]
    assert [row[f"mean/{name}"] for name in ("attention_alpha", "mlp_alpha", "s_qk", "s_z")] == ["0.375", "", "", "8.0"]


def test_what_is_half_written_is_said_and_not_dropped(tmp_path: Path) -> None:
    names = ("waiting", "half", "list", "broken_rows", "no_rows", "alive", "dead", "given_back", "short", "stopped", "no_loss")
    planned = {name: folders.planned(name) for name in names}
    folders.write_sweep(tmp_path, list(planned.values()))
    places = {
        name: folders.write_run(tmp_path, run, status="running" if name in ("alive", "dead", "given_back") else "finished")
        for name, run in planned.items()
        if name != "waiting"
    }
    (places["half"] / "run.json").write_text((places["half"] / "run.json").read_text()[:100])
    (places["list"] / "run.json").write_text("[1]")
    with (places["broken_rows"] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    with (places["alive"] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    (places["no_rows"] / "metrics.jsonl").unlink()
    for name, change in (("short", {"tokens": 100}), ("stopped", {"status": "stopped"}), ("no_loss", {"final": {}})):
        record = json.loads((places[name] / "run.json").read_text())
        (places[name] / "run.json").write_text(json.dumps(record | change))
    folders.claim(tmp_path, planned["alive"], 2, age=5)
    folders.claim(tmp_path, planned["alive"], 1, age=500)
    folders.claim(tmp_path, planned["dead"], 10, age=500)
    folders.claim(tmp_path, planned["dead"], 9, age=5)
    folders.claim(tmp_path, planned["given_back"], 1, age=time.time())
    found = {row["name"]: (row["status"], row["error"]) for row in rows_of(write_results(tmp_path))}
    assert found == {
        "waiting": ("waiting", ""),
        "half": ("interrupted", "run.json cannot be read (half-written?)"),
        "list": ("interrupted", "run.json holds no JSON object"),
        "broken_rows": ("finished", "metrics.jsonl cannot be read in line 5"),
        "no_rows": ("finished", "metrics.jsonl cannot be read (No such file or directory)"),
        "alive": ("running", ""),
        "dead": ("interrupted", ""),
        "given_back": ("interrupted", ""),
        "short": ("interrupted", "it was trained on 100 of 4,000 tokens"),
        "stopped": ("interrupted", "its status is 'stopped'"),
        "no_loss": ("failed", "it has no final validation loss"),
    }


def test_a_row_is_taken_over_until_its_run_is_trained_again(tmp_path: Path) -> None:
    first, second = planned = [folders.planned("a"), folders.planned("b")]
    folders.write_sweep(tmp_path, planned)
    places = [folders.write_run(tmp_path, first), folders.write_run(tmp_path, second, status="failed", error="diverged")]
    for place in places:
        later(place / "run.json", -10)
    before = write_results(tmp_path).read_text()
    (places[0] / "metrics.jsonl").unlink()  # an ended run is not looked into again
    assert write_results(tmp_path).read_text() == before
    folders.write_run(tmp_path, second, final={"val/loss": 0.5})
    assert [(row["status"], row["val/loss"], row["error"]) for row in rows_of(write_results(tmp_path))] == [
        ("finished", "1.0", ""),
        ("finished", "0.5", ""),
    ]


def test_rows_read_before_a_run_began_again_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folders.planned("a")
    folders.write_sweep(tmp_path, [run])
    place = folders.write_run(tmp_path, run, status="failed", error="diverged")

    def retried_meanwhile(*arguments: Any, read: Callable[..., Any] = results.result_rows) -> Any:
        rows = read(*arguments)
        time.sleep(0.02)  # longer than a file system's clock ticks
        folders.write_run(tmp_path, run, final={"val/loss": 0.5})
        time.sleep(0.02)
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(results, "result_rows", retried_meanwhile)
        assert rows_of(write_results(tmp_path))[0]["status"] == "failed"
    assert place.exists()
    assert rows_of(write_results(tmp_path))[0]["status"] == "finished"


def test_rows_of_another_code_or_plan_are_not_taken_over(tmp_path: Path) -> None:
    run = folders.planned("a", trial={LR: 0.1})
    folders.write_sweep(tmp_path, [run])
    later(folders.write_run(tmp_path, run, settings={WARMUP: 0.3}) / "run.json", -10)
    for spoilt in ("", "name,id\na,b\n", '"' + "x" * 200_000, "\0\n", "stage,name\n\xff"):
        (tmp_path / "results.csv").write_bytes(spoilt.encode("latin-1"))
        assert rows_of(write_results(tmp_path))[0]["val/loss"] == "1.0"
    folders.write_sweep(tmp_path, [run | {"trial": {LR: 0.1}}, folders.planned("b", trial={WARMUP: 0.5})])
    assert [row[WARMUP] for row in rows_of(write_results(tmp_path))] == ["0.3", "0.5"]


@pytest.mark.parametrize("by", ["arm", "base"])
def test_every_trial_has_one_row_and_the_report_finds_those_of_every_arm(tmp_path: Path, by: str) -> None:
    from ngpt_lab.report.tuning import rows_for, tuning_status  # with all that the report draws with

    rates = {0.001: 1.2, 0.002: 1.0, 0.004: 1.1}
    arms = {"ngpt": "", "ngpt-slerp": "slerp"}
    tuned = arms if by == "arm" else {"ngpt": ""}
    common = {"stage": "tune", "base": "ngpt", "seed": 101, "budget": 4000}
    trials = [folders.planned(f"tune-{arm}-lr{lr}", arm=arm, trial={LR: lr}, **common) for arm in tuned for lr in rates]
    finals = [folders.planned(f"{arm}-s1", arm=arm, base="ngpt", budget=4000) for arm in arms]
    waiting = folders.planned("tune-ngpt-lr1", arm="ngpt", trial={LR: 1.0}, **common)
    other = folders.planned("tune-gpt-lr1", arm="gpt", trial={LR: 1.0}, **(common | {"base": "gpt"}))
    folders.write_sweep(tmp_path, [*trials, waiting, other, *finals], tune={"keys": [LR], "by": by})
    for trial in trials:
        failed = {"status": "failed", "error": "the loss is not finite"} if trial["trial"][LR] == 0.004 else {}
        folders.write_run(tmp_path, trial, final={"val/loss": rates[trial["trial"][LR]]}, **failed)
    folders.write_run(tmp_path, other, status="failed")
    write_results(tmp_path)
    rows = pd.read_csv(tmp_path / "tuning.csv")
    assert list(rows.columns) == ["arm", "base", "seed", "budget", "lr", "val_loss", LR]
    of_arms = [(arm, "ngpt") for arm in tuned for _ in rates]
    assert list(zip(rows["arm"], rows["base"], strict=True)) == [*of_arms, ("gpt", "gpt")]
    for arm in arms:
        own, owner = rows_for(rows, arm, "ngpt", {})
        assert owner == (arm if arm in tuned else "ngpt")
        status = tuning_status({LR: 0.002}, own, 4000)
        assert status == "tuned: best of 3 trials at this budget, learning rate inside its grid 0.001..0.004"
    assert rows.loc[rows["lr"] == 0.004, "val_loss"].isna().all()


def test_a_trial_of_something_else_tells_its_learning_rate(tmp_path: Path) -> None:
    trial = folders.planned("tune-a", stage="tune", trial={WARMUP: 0.1})
    folders.write_sweep(tmp_path, [trial], tune={"keys": [WARMUP], "by": "arm"})
    folders.write_run(tmp_path, trial, settings={LR: 0.003})
    write_results(tmp_path)
    [row] = rows_of(tmp_path / "tuning.csv")
    assert (row["lr"], row[WARMUP], row["val_loss"]) == ("0.003", "0.1", "1.0")


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    for content in (None, "{", '{"runs": 3}', '{"runs": [{"name": "a"}]}'):
        if content is not None:
            (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(InputError, match=r"sweep\.json lists no runs"):
            write_results(tmp_path)
    assert not (tmp_path / "results.csv").exists()
