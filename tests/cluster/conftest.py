"""A small sweep of both models with an ablation, carried out by this machine alone, and as a cluster's."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
PATIENCE = 900
SPEC: dict[str, Any] = {
    "question": "Does it matter where it is trained?",
    "bases": {
        "ngpt": {"configs": ["model/ngpt.yaml", "size/debug.yaml", "text.yaml"], "ablations": ["slerp"]},
        "nemotron": {"configs": ["model/nemotron.yaml", "size/debug.yaml", "text.yaml"]},
    },
    "compare": {"baseline": "nemotron"},
    "seeds": [1, 2],
}
OF_THE_CLOCK = ("time", "per_second")


@dataclass
class Sweep:
    """A sweep's folder, and the process that serves it."""

    spec: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def served(self, *more: str) -> Iterator["subprocess.Popen[str]"]:
        """`ngpt-lab sweep`, in a process that is killed at the end if it still goes on."""
        command = [sys.executable, "-m", "ngpt_lab", "sweep", str(self.spec), "--out", str(self.folder), *more]
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        told = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        with subprocess.Popen(
            command, env={**os.environ, **self.environment, **told}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def carried_out(self, *more: str) -> str:
        """Carry it out to its end; what it said."""
        with self.served(*more) as process:
            told, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, told
        return told

    @property
    def held(self) -> list[str]:
        """The runs that wait in their middle."""
        return [file.stem for file in self.folder.glob("*.held")]

    def starts(self, run: str) -> list[dict[str, Any]]:
        """Every time that a job began a run."""
        return [json.loads(line) for line in (self.folder / "jobs" / f"{run}.jsonl").read_text().splitlines()]

    @property
    def runs(self) -> list[Path]:
        """The folders of its runs."""
        return sorted((self.folder / "runs").iterdir())

    def results(self) -> list[dict[str, str]]:
        """results.csv, less what the clock decides."""
        with (self.folder / "results.csv").open() as file:
            return [timeless(row) for row in csv.DictReader(file)]

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """What every run logged, to the last digit, less what the clock decides."""
        return {
            run.name: [timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
            for run in self.runs
        }


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row less what the clock decides."""
    return {key: value for key, value in row.items() if not any(word in key for word in OF_THE_CLOCK)}


def until(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something to be so."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specification, in a folder beside its text."""
    folder = tmp_path_factory.mktemp("spec")
    (folder / "words.txt").write_text("".join(f"line {n} says {n * n}\n" for n in range(4000)))
    source = {"class_path": "ngpt_lab.data.TextFiles", "init_args": {"files": str(folder / "words.txt")}}
    trainer = {"accelerator": "cpu", "callbacks": [{"class_path": "held.Held"}]}
    data = {"class_path": "ngpt_lab.data.TextDataModule", "init_args": {"source": source}}
    (folder / "text.yaml").write_text(yaml.safe_dump({"trainer": trainer, "data": data}))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return folder / "sweep.yaml"


@pytest.fixture(scope="session")
def local(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The sweep as this machine's processes carry it out, undisturbed."""
    sweep = Sweep(spec, tmp_path_factory.mktemp("local") / "out")
    sweep.carried_out("--workers", "2", "--executor", "local", "--executor.threads", "1")
    return sweep


@pytest.fixture
def tools() -> dict[str, Any]:
    """What the tests do with sweeps."""
    return {"Sweep": Sweep, "until": until, "assert_same": assert_same}


def assert_same(sweep: Sweep, local: Sweep) -> None:
    """That a sweep came to what this machine's came to, and no run began after it had finished."""
    assert sweep.results() == local.results()
    assert {row["status"] for row in sweep.results()} == {"finished"}
    assert sweep.metrics() == local.metrics()
    for run in sweep.runs:
        ended = (run / "run.json").stat().st_mtime
        assert all(start["time"] < ended for start in sweep.starts(run.name))
