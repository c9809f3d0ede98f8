"""`ngpt-lab status` tells every run's state, quickly, whatever the folder holds."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.analysis.states import STATES
from ngpt_lab.errors import InputError
from ngpt_lab.sweep import status
from ngpt_lab.sweep.results import write_results

_spec = importlib.util.spec_from_file_location("sweep_folders", Path(__file__).parent / "sweep_folders.py")
assert _spec is not None
assert _spec.loader is not None
folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(folders)

NAMES = ("done", "waiting", "[bold]failed <b>", "alive", "dead", "half")
ERROR = "RuntimeError: [red]out of memory[/]\nin a layer with \udcff"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    runs = {name: folders.planned(name) for name in NAMES}
    folders.write_sweep(tmp_path, list(runs.values()))
    folders.write_run(tmp_path, runs["done"], final={"val/loss": 1.25})
    folders.write_run(tmp_path, runs["[bold]failed <b>"], status="failed", error=ERROR, losses={10: 3.0, 20: 2.5})
    for name in ("alive", "dead"):
        place = folders.write_run(tmp_path, runs[name], status="running", losses={5: 3.5, 10: 3.0})
        with (place / "metrics.jsonl").open("a") as file:
            file.write('{"step": 15, "tok')
    (folders.write_run(tmp_path, runs["half"]) / "run.json").write_text('{"status": "fin')
    folders.claim(tmp_path, runs["alive"], 1, age=1)
    folders.claim(tmp_path, runs["dead"], 1, age=1000)
    return tmp_path


def told(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    status.main([str(folder), *options])
    return capsys.readouterr().out


def states(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {run["name"].removesuffix("-0123abcd"): run for run in json.loads(told(folder, capsys, "--json"))["runs"]}


def test_every_run_of_a_sweep_is_in_the_state_it_is_in(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # from the runs alone, then with results.csv
        found = states(sweep, capsys)
        keys = ("state", "step", "steps", "tokens", "loss", "seconds_left")
        assert {name: tuple(found[name][key] for key in keys) for name in NAMES} == {
            "done": ("finished", 40, 40, 4000, 1.25, None),
            "waiting": ("waiting", None, 40, None, None, None),
            "[bold]failed <b>": ("failed", 20, 40, 2000, 2.5, None),
            "alive": ("running", 10, 40, 1000, 3.0, 3.0),
            "dead": ("interrupted", 10, 40, 1000, 3.0, None),
            "half": ("interrupted", 40, 40, 4000, 2.0, None),
        }
        assert found["half"]["error"] == "run.json cannot be read (half-written?)"
        os.utime(write_results(sweep), (time.time() + 10,) * 2)


def test_the_table_and_the_errors_are_told_as_they_are(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = told(sweep, capsys).splitlines()
    assert lines[0] == "6 runs: 1 finished, 1 failed, 1 running, 2 interrupted, 1 waiting"
    assert [line.split("-0123abcd")[0] for line in lines[2:]] == list(NAMES)
    assert next(line for line in lines if "alive" in line).split()[1:] == ["running", "10/40", "1,000", "3.0000", "3.0", "s"]
    failed = told(sweep, capsys, "--failed").splitlines()[1:]
    assert failed == ["[bold]failed <b>-0123abcd", "RuntimeError: [red]out of memory[/]", "in a layer with \\udcff"]
    assert [run["state"] for run in json.loads(told(sweep, capsys, "--failed", "--json"))["runs"]] == ["failed"]


def test_of_many_runs_those_that_need_a_look_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [folders.planned(f"r{number}") for number in range(60)]
    folders.write_sweep(tmp_path, runs)
    folders.write_run(tmp_path, runs[50], status="failed", error="diverged")
    folders.write_run(tmp_path, runs[51], status="running")
    folders.claim(tmp_path, runs[51], 1, age=1)
    lines = told(tmp_path, capsys).splitlines()
    assert [line.split("-")[0] for line in lines[2:]] == ["r51", "r50", "58 more: "]
    assert len(told(tmp_path, capsys, "--all").splitlines()) == 62


def test_any_folder_of_runs_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = {"arms": {"ngpt": {}, "gpt": {}}, "budgets": [4000], "seeds": [1]}
    place = folders.write_run(tmp_path, folders.planned("x", folder="ngpt-4000-s1"))
    alive, dead = (folders.write_run(tmp_path, folders.planned("x", folder=name), status="running") for name in ("up", "down"))
    for file in dead.iterdir():
        os.utime(file, (time.time() - 1000,) * 2)
    for spoilt in ("{", '{"arms": 3}', json.dumps(comparison)):
        (tmp_path / "compare.json").write_text(spoilt)
        found = {name: run["state"] for name, run in states(tmp_path, capsys).items()}
        missing = {"gpt-4000-s1": "waiting"} if spoilt == json.dumps(comparison) else {}
        assert found == {"ngpt-4000-s1": "finished", "up": "running", "down": "interrupted"} | missing
    assert set(states(tmp_path / "runs", capsys)) == {"ngpt-4000-s1", "up", "down"}
    assert states(place, capsys)["ngpt-4000-s1"]["loss"] == 1.0
    (alive / "run.json").unlink()
    assert states(alive, capsys)["up"]["state"] == "waiting"
    for nothing in (place / "missing", place / "run.json", tmp_path.parent / "empty"):
        with pytest.raises(InputError, match="holds no run"):
            status.main([str(nothing)])


def test_it_loads_nothing_heavy(sweep: Path) -> None:
    program = (
        "import sys; from ngpt_lab.sweep import diff, status; status.main([sys.argv[1]]);"
        "diff.main([sys.argv[1] + '/runs/done-0123abcd', sys.argv[1] + '/runs/alive-0123abcd']);"
        "print(sorted({'torch', 'lightning', 'pandas', 'numpy', 'scipy', 'matplotlib', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(sweep)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_import_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    (tmp_path / "run.json").write_text('{"status": "imported", "error": null, "model": {"parameters": 10}}')
    assert "imported" in told(tmp_path, capsys)
    assert [run["state"] for run in states(tmp_path, capsys).values()] == ["imported"]


def test_every_state_has_a_colour() -> None:
    assert set(status.COLOURS) == set(STATES)
