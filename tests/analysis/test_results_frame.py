import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.analysis.columns import COLUMNS, SCALES
from ngpt_lab.analysis.figures import final_loss
from ngpt_lab.analysis.frames import final_losses
from ngpt_lab.analysis.results import by_condition, final_rows, read_results, rows_of_runs
from ngpt_lab.analysis.runs import load_run
from ngpt_lab.errors import InputError
from ngpt_lab.sweep import results as written

WriteRun = Callable[..., Path]
MadeRows = Callable[..., pd.DataFrame]
RATE = "model.init_args.optimizer.init_args.lr"


@pytest.fixture
def rows(made_rows: MadeRows) -> pd.DataFrame:
    finished = made_rows({"plain": [2.0, 2.1], 'NA "<b>"': [1.9, 0.1 + 0.2]}).assign(**{RATE: 0.004})
    waiting = made_rows({"plain": [2.0]}, 204_800, status="waiting", **dict.fromkeys(("tokens", "flops_per_token", "val/loss")))
    return pd.concat([finished, waiting], ignore_index=True)


def test_what_was_written_is_read_back(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(tmp_path / "results.csv", index=False)
    found = read_results(tmp_path / "results.csv")
    assert list(found.columns) == [*COLUMNS, RATE]
    assert found["arm"].to_list() == rows["arm"].to_list()
    assert found["error"].to_list() == [""] * 5
    assert found["tokens"].to_list()[:4] == [409_600] * 4
    assert found["tokens"].isna().to_list() == [False] * 4 + [True]
    assert found["val/loss"].to_list()[:4] == [2.0, 2.1, 1.9, 0.1 + 0.2]
    assert found[RATE].to_list()[:4] == [0.004] * 4
    assert {str(found[column].dtype) for column in ("tokens", "steps", "flops_per_token")} == {"Int64"}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_floats_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, made_rows: MadeRows, values: list[float]
) -> None:
    path = tmp_path_factory.getbasetemp() / "floats.csv"
    made_rows({"a": values}).to_csv(path, index=False)
    assert read_results(path)["test/loss"].to_list() == values


def test_settings_that_are_words_stay_words(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.assign(**{"a.b": ["1/n_layers", "0.05", "", "null", "true"]}).to_csv(tmp_path / "results.csv", index=False)
    assert read_results(tmp_path / "results.csv")["a.b"].fillna("-").to_list() == ["1/n_layers", "0.05", "-", "null", "true"]


def test_the_columns_are_those_that_a_sweep_writes() -> None:
    assert {column for column in written.columns({"runs": []}) if "." not in column} == set(COLUMNS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop(columns="seed"), "no column 'seed'"),
        (lambda rows: rows.assign(beauty=1), "the column 'beauty', which no sweep writes"),
        (lambda rows: rows.assign(stage="middle"), "the stage 'middle'"),
        (lambda rows: rows.assign(status="done"), "the status 'done'"),
        (lambda rows: rows.assign(seed="one"), "'one'"),
        (lambda rows: rows.assign(steps="many"), "'many'"),
        (lambda rows: rows.assign(tokens=0.5), "cannot be read"),
        (lambda rows: pd.concat([rows, rows.head(1)]), "two rows of plain, 409600 tokens, seed 1"),
    ],
)
def test_a_table_of_something_else_is_refused(
    tmp_path: Path, rows: pd.DataFrame, change: Callable[..., Any], words: str
) -> None:
    path = tmp_path / "results.csv"
    change(rows).to_csv(path, index=False)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [None, "", '"a', b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_results(path)


def test_only_finished_runs_of_the_final_stage_are_compared(rows: pd.DataFrame) -> None:
    states = pd.concat([rows, rows.assign(stage="tune"), rows.assign(status="failed")])
    assert len(final_rows(states)) == 4


def test_conditions_come_in_the_order_of_their_numbers(made_rows: MadeRows) -> None:
    names = ["seq_len=1024; k=2", "seq_len=256", "seq_len=1024; k=16", "", "lr=1e-3", "lr=0.01"]
    rows = pd.concat([made_rows({"a": [1.0]}, condition=name) for name in names])
    ordered = ["", "lr=1e-3", "lr=0.01", "seq_len=256", "seq_len=1024; k=2", "seq_len=1024; k=16"]
    assert [name for name, _ in by_condition(rows)] == ordered


def test_run_folders_give_the_rows_that_results_give(tmp_path: Path, write_run: WriteRun) -> None:
    sweep = {"stage": "final", "base": "b", "ablation": "slerp", "condition": {"data.init_args.seq_len": 256, "x.on": True}}
    folder = write_run(tmp_path / "b-slerp-819200-s3", seed=3, sweep=sweep, arm="ngpt")
    record = json.loads((folder / "run.json").read_text())
    betas = {"model.init_args.optimizer.init_args.betas": [0.9, 0.95]}
    (folder / "run.json").write_text(json.dumps(record | {"settings": record["settings"] | betas}))
    [row] = rows_of_runs([load_run(folder)]).to_dict("records")
    assert [row[key] for key in ("stage", "base", "ablation", "condition", "budget", "seed", "status", "error")] == [
        *("final", "b", "slerp", "seq_len=256; on=true", 819_200, 3, "finished", "")
    ]
    assert (row["test/loss"], row["tokens"], row["steps"]) == (1.51, 819_200, 400)
    assert np.isnan(row["val/accuracy"])
    assert np.isnan(row["mean/s_v"])
    assert row["mean/attention_alpha"] == pytest.approx(0.25 + 0.05 + 0.03)
    assert row["mean/s_z"] == pytest.approx(24)
    assert row["clipped_share"] == pytest.approx(0.8)
    assert row[RATE] == 0.004
    assert row["model.init_args.optimizer.init_args.betas"] == "[0.9, 0.95]"


def test_the_rows_that_a_sweep_writes_are_those_of_its_run_folders(tmp_path: Path, write_run: WriteRun) -> None:
    labels = {"stage": "final", "base": "ngpt", "ablation": "slerp", "condition": {"data.init_args.seq_len": 256}}
    planned = []
    for seed in (1, 2):
        name = f"ngpt-slerp-s{seed}"
        write_run(tmp_path / "runs" / name, seed=seed, loss=1.5 + seed / 7, sweep=labels, arm="ngpt-slerp", budget=819_200)
        planned.append(
            {"folder": name, "name": name, "arm": "ngpt-slerp", "budget": 819_200, "seed": seed, "steps": 400, **labels}
        )
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": planned}))
    read = read_results(written.write_results(tmp_path))
    made = rows_of_runs([load_run(tmp_path / "runs" / run["name"]) for run in planned])
    columns = [column for column in COLUMNS if column != "arm"]
    pd.testing.assert_frame_equal(read[columns], made[columns], check_dtype=False, rtol=1e-12)


def test_the_training_loss_is_a_mean_over_the_last_tenth(tmp_path: Path, write_run: WriteRun) -> None:
    run = load_run(write_run(tmp_path / "run"))
    last = run.metrics["train/loss"].to_list()
    rows = run.metrics["tokens"].to_list()
    expected = [loss for loss, tokens in zip(last, rows, strict=True) if tokens > 0.9 * run.tokens and not np.isnan(loss)]
    assert rows_of_runs([run])["train/loss"].item() == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"status": "failed", "error": "x"}, "failed"),
        ({"status": "stopped"}, "interrupted"),
        ({"tokens": 2048}, "interrupted"),
        ({"final": {}}, "failed"),
        ({"final": {"val/loss": float("inf")}}, "failed"),
    ],
)
def test_a_run_that_cannot_be_used_is_a_row_that_says_so(
    tmp_path: Path, write_run: WriteRun, changes: dict[str, Any], status: str
) -> None:
    run = load_run(write_run(tmp_path / "run", **changes))
    [row] = rows_of_runs([run]).to_dict("records")
    assert (row["status"], row["error"]) == (status, run.problem)
    assert all(np.isnan(row[column]) for column in SCALES)
    labels = {"name": "run", "folder": "run", "arm": "ngpt", "budget": 819_200, "seed": 0, "steps": 400, "stage": "final"}
    (tmp_path / "runs").mkdir()
    run.folder.rename(tmp_path / "runs" / "run")
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [labels]}))
    read = read_results(written.write_results(tmp_path))
    assert read["status"].to_list() == [status]
    assert read["val/loss"].isna().all()


def test_a_sweeps_rows_are_those_of_its_runs_where_rows_are_odd(tmp_path: Path, write_run: WriteRun) -> None:
    """A loss that is no number, and telemetry that is not in the last row."""
    place = write_run(tmp_path / "runs" / "odd", "nemotron")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    rows[-2] |= {"train/loss": None, "train/clipped_share": None}
    rows[3] |= {"scale/s_z/mean_abs": 7.0}
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"name": "odd", "folder": "odd", "arm": "ngpt", "budget": 819_200, "seed": 0, "steps": 400, "stage": "final"}
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [labels]}))
    [read], [made] = (
        frame.to_dict("records") for frame in (read_results(written.write_results(tmp_path)), rows_of_runs([load_run(place)]))
    )
    for row in (read, made):
        assert np.isnan(row["train/loss"])
        assert (row["mean/s_z"], row["clipped_share"]) == (7.0, 0.15)


def test_figures_take_these_rows_as_they_take_those_of_runs(tmp_path: Path, write_run: WriteRun) -> None:
    runs = [load_run(write_run(tmp_path / f"a-{budget}-s1", budget=budget, seed=1)) for budget in (409_600, 819_200)]
    rows = final_rows(rows_of_runs(runs))
    expected = final_losses(runs)
    pd.testing.assert_frame_equal(rows[list(expected.columns)], expected, check_dtype=False)
    assert final_loss(rows, ["a"]) is not None
