"""`ngpt-lab sweep` from the specification to the report, and again with nothing left to do."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ngpt_lab.cli import main
from ngpt_lab.sweep.executor import Executor, Job
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.train import train

LR = "model.init_args.optimizer.init_args.lr"
NGPT = {"configs": ["model/ngpt.yaml", "size/debug.yaml", "short.yaml"]}
NEMOTRON = {"configs": ["model/nemotron.yaml", "size/debug.yaml", "short.yaml"]}


class Done(Job):
    """A run that was carried out when it was started."""

    def __init__(self, told: str | None) -> None:
        self.told = told

    def ended(self) -> bool:
        return True

    def error(self) -> str | None:
        return self.told

    def kill(self) -> None:
        raise AssertionError("nothing is left to end")


class Here(Executor):
    """Carries runs out in this process, which has loaded torch already."""

    slots = 1

    def __init__(self, *_: object) -> None:
        pass

    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        ((run, _),) = runs
        try:
            train(run)
        except Exception as error:
            return [Done(f"{type(error).__name__}: {error}")]
        return [Done(None)]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ngpt_lab.sweep.pool.LocalPool", Here)


def sweep(spec: Path, *more: str) -> None:
    main(["sweep", str(spec), "--out", str(spec.parent / "out"), "--workers", "1", *more])


def refused(capsys: pytest.CaptureFixture[str], spec: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as stop:
        sweep(spec, *more)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / "results.csv").set_index("name")


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "out" / "runs").rglob("*")}


def test_arms_are_tuned_trained_on_their_choice_and_reported_once(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rates = [1e-6, 4e-3]  # one at which nothing is learned
    spec = write(
        bases={"ngpt": {**NGPT, "ablations": ["slerp"]}, "nemotron": NEMOTRON},
        tune={"seeds": [7], "grid": {LR: rates}, "by": "base"},
        seeds=[1, 2, 3],
        budgets=[1024],
    )
    sweep(spec, "--run", "ngpt-slerp-s2")
    assert list(rows(tmp_path).query("status == 'finished'").index) == [
        "tune-ngpt-lr1e-06-s7",
        "tune-ngpt-lr0.004-s7",
        "ngpt-slerp-s2",
    ]
    sweep(spec)
    found = rows(tmp_path)
    assert set(found["status"]) == {"finished"}
    assert len(found) == 4 + 9
    assert set(found.query("stage == 'final'")[LR]) == {4e-3}
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*/run.json")]
    finals = [record for record in records if record["sweep"]["stage"] == "final"]
    assert all(("test/loss" in record["final"]) == (record in finals) for record in records)
    assert {record["settings"][LR] for record in finals} == {4e-3}
    assert (tmp_path / "out" / "report.html").is_file()

    before = written(tmp_path)
    sweep(spec)
    assert written(tmp_path) == before

    capsys.readouterr()
    main(["status", str(tmp_path / "out")])
    assert "13 runs: 13 finished" in capsys.readouterr().out
    main(["tables", str(tmp_path / "out" / "results.csv")])
    told = capsys.readouterr().out
    assert all(arm in told for arm in ("ngpt-slerp", "nemotron"))


def test_a_failed_run_is_kept_with_its_error_and_tried_again_on_request(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hot.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"optimizer": {"init_args": {"lr": 1e30}}}}}))
    spec = write(bases={"ngpt": {**NGPT, "ablations": ["hot.yaml"]}, "nemotron": NEMOTRON}, seeds=[1], budgets=[512])
    told = refused(capsys, spec)
    assert "1 run(s) failed" in told
    assert "not finite" in told
    found = rows(tmp_path)
    assert found["status"].to_dict() == {"ngpt-s1": "finished", "ngpt-hot-s1": "failed", "nemotron-s1": "finished"}
    assert "not finite" in found.loc["ngpt-hot-s1", "error"]
    before = written(tmp_path)
    refused(capsys, spec)
    assert written(tmp_path) == before
    refused(capsys, spec, "--retry")
    again = {path.parent.name.rpartition("-")[0] for path, at in written(tmp_path).items() if before.get(path) != at}
    assert "ngpt-hot-s1" in again
    assert not again & {"ngpt-s1", "nemotron-s1"}


def test_thousands_of_runs_are_not_started_unasked(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(seeds=1000)
    assert "asks for up to 6,000 runs: say --yes if that is meant" in refused(capsys, spec)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_in_the_sweep_is_refused(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, write(bases={"nemotron": NEMOTRON}, seeds=[1], budgets=[512]), "--run", "ngpt-s1")
    assert "--run ngpt-s1: there is no such run" in told
    assert not (tmp_path / "out").exists()
