"""What a cluster's job does where it finds a run, and what it leaves; what it would train is made up."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.sweep import cluster_job
from ngpt_lab.sweep.claims import EXPIRY, Claims, is_dead, newest
from ngpt_lab.sweep.cluster_job import FRUITLESS, ClusterJob
from ngpt_lab.sweep.run import PlannedRun

FINISHED = {"status": "finished", "steps": 2, "tokens_per_step": 4, "tokens": 8, "final": {"val/loss": 2.0}}
WAITS = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(143)); print(flush=True); time.sleep(60)"
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run(tmp_path: Path) -> PlannedRun:
    return PlannedRun(tmp_path / "runs" / "a", (), 2, {"arm": "a", "budget": 8})


def write(run: PlannedRun, record: dict[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "run.json").write_text(json.dumps(record))


def trains(monkeypatch: pytest.MonkeyPatch, code: str = "") -> list[str]:
    """Let the run's process carry out `code`; the names of the runs that were started."""
    started: list[str] = []

    def start(run: PlannedRun, *_: object) -> "subprocess.Popen[bytes]":
        started.append(run.name)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # until it has ended, or says that it waits
        process.stdout.close()
        return process

    monkeypatch.setattr("ngpt_lab.sweep.separate.start", start)
    monkeypatch.setattr(cluster_job, "LAG", 0)
    return started


def test_a_job_leaves_alone_what_is_finished_or_somebody_elses(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch)
    with Claims(tmp_path / "claims") as other:
        assert other.take("a")
        ClusterJob(run, tmp_path, "ticket")()
    write(run, FINISHED)
    ClusterJob(run, tmp_path, "ticket")()
    assert started == []


def test_a_run_that_dies_has_failed_and_is_anyones(run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    ClusterJob(run, tmp_path, "ticket")()
    assert run.record()["error"] == "its process was killed (signal 9: out of memory?)"
    assert is_dead(newest(tmp_path / "claims")["a"], EXPIRY)


def test_a_run_that_is_told_to_save_has_not_failed(run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains(monkeypatch, WAITS)
    job = ClusterJob(run, tmp_path, "ticket")
    thread = threading.Timer(0.5, lambda: setattr(job, "told", True))
    thread.start()
    with pytest.raises(SystemExit) as stop:
        job()
    thread.join()
    assert stop.value.code == 143
    assert not run.failed
    assert is_dead(newest(tmp_path / "claims")["a"], EXPIRY)


def test_a_job_whose_run_another_worker_took_over_ends_it_at_once(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch, WAITS)
    monkeypatch.setattr(cluster_job, "Claims", lambda folder: Claims(folder, beat=0.05))
    job = ClusterJob(run, tmp_path, "ticket")

    def take_over() -> None:
        while not started:
            time.sleep(0.01)
        assert Claims(tmp_path / "claims", expiry=-1).take("a")

    thread = threading.Thread(target=take_over)
    thread.start()
    job()
    thread.join()
    assert job.process is not None
    assert job.process.poll() == -9
    assert run.record() == {}


def test_a_job_that_never_comes_to_a_checkpoint_is_not_begun_for_ever(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch, WAITS)
    for _ in range(FRUITLESS):
        job = ClusterJob(run, tmp_path, "ticket")
        job.told = True
        with pytest.raises(SystemExit):
            job()
    ClusterJob(run, tmp_path, "ticket")()
    assert len(started) == FRUITLESS
    assert f"it began {FRUITLESS} times at step 0 and came to no checkpoint" in run.record()["error"]


def meanwhile(what: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=what)
    thread.start()
    return thread


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_that_is_begun_again_waits_for_the_one_that_still_trains(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch)
    monkeypatch.setattr(cluster_job, "PAUSE", 0.01)
    with Claims(tmp_path / "claims") as first:
        assert first.take("a", "ticket")
        assert first.take("a@job")
        thread = meanwhile(ClusterJob(run, tmp_path, "ticket"))
        time.sleep(0.5)
        assert thread.is_alive()
        assert started == []
        first.leave("a")
        first.release("a@job")  # as a clean requeue does
        until(lambda: started == ["a"])
        thread.join()
    assert started == ["a"]


def test_a_job_that_waits_does_nothing_once_the_other_has_finished_the_run(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch)
    monkeypatch.setattr(cluster_job, "PAUSE", 0.01)
    with Claims(tmp_path / "claims") as first:
        assert first.take("a@job")
        thread = meanwhile(ClusterJob(run, tmp_path, "ticket"))
        time.sleep(0.2)
        write(run, FINISHED)
        first.release("a@job")
        thread.join()
    assert started == []


def test_a_job_that_is_told_to_end_while_it_waits_leaves_the_run_to_the_one_that_trains(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch)
    record = {"status": "running", "steps": 2}
    write(run, record)
    with Claims(tmp_path / "claims") as first:
        assert first.take("a", "ticket")
        assert first.take("a@job")
        job = ClusterJob(run, tmp_path, "ticket")
        job.told = True
        with pytest.raises(SystemExit):
            job()
        assert first.holds("a")
        assert not is_dead(newest(tmp_path / "claims")["a"], EXPIRY)
    assert started == []
    assert run.record() == record


def test_a_job_that_was_thought_dead_ends_its_run_at_once_and_leaves_it_to_the_one_begun_again(
    run: PlannedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = trains(monkeypatch, WAITS)
    monkeypatch.setattr(cluster_job, "Claims", lambda folder: Claims(folder, beat=0.05))
    job, again = ClusterJob(run, tmp_path, "ticket"), Claims(tmp_path / "claims")

    def take_over() -> None:
        until(lambda: started)
        assert again.take("a", "ticket")
        assert Claims(tmp_path / "claims", expiry=-1).take("a@job")  # to whom everyone seems dead

    thread = meanwhile(take_over)
    job()
    thread.join()
    assert job.process is not None
    assert job.process.poll() == -9
    assert run.record() == {}
    assert again.holds("a")
    assert not is_dead(newest(tmp_path / "claims")["a"], EXPIRY)
