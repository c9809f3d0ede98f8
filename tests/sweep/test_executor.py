"""Who trains what, when, and how often; the runs are made up, so that nothing is trained."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import EXPIRY, Claims, is_dead, newest
from ngpt_lab.sweep.executor import Executor, Job, serve
from ngpt_lab.sweep.run import PlannedRun

FINISHED = {"status": "finished", "steps": 2, "tokens_per_step": 4, "tokens": 8, "final": {"val/loss": 2.0}}


class MadeJob(Job):
    def __init__(self, pool: "MadePool", run: PlannedRun) -> None:
        self.pool, self.run, self.looks, self.killed = pool, run, 0, False

    def ended(self) -> bool:
        self.looks += 1
        if self.looks < 3 or self.pool.stuck.get(self.run.name) == "for ever":
            return False
        if self.looks == 3:
            self.pool.log.append(("ended", self.run.name))
            if self.error() is None:
                write(self.run, FINISHED)
        return True

    def error(self) -> str | None:
        return self.pool.errors.get(self.run.name)

    def kill(self) -> None:
        self.killed = True
        self.pool.log.append(("killed", self.run.name))


class MadePool(Executor):
    """Runs that end at the third look."""

    def __init__(self, slots: int = 2, errors: dict[str, str] | None = None) -> None:
        self.slots, self.errors = slots, errors or {}
        self.stuck: dict[str, str] = {}
        self.together = threading.Barrier(1)
        self.log: list[tuple[str, str]] = []

    job = MadeJob

    def start(self, runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        if not self.log:
            self.together.wait()
        self.log += [("started", run.name) for run, _ in runs]
        return [self.job(self, run) for run, _ in runs]

    def named(self, what: str) -> list[str]:
        return [name for event, name in self.log if event == what]


def write(run: PlannedRun, record: dict[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "run.json").write_text(json.dumps(record))


def planned(folder: Path, names: str) -> list[PlannedRun]:
    return [PlannedRun(folder / "runs" / name, (), 2, {"arm": name, "budget": 8}) for name in names]


def told(failed: Sequence[tuple[PlannedRun, str]]) -> list[tuple[str, str]]:
    return [(run.name, error) for run, error in failed]


def test_runs_start_in_their_order_and_never_more_than_there_are_slots(tmp_path: Path) -> None:
    runs, pool = planned(tmp_path, "abcdef"), MadePool(slots=2)
    assert serve(runs, pool, pause=0) == []
    assert pool.named("started") == list("abcdef")
    going = 0
    for event, _ in pool.log:
        going += 1 if event == "started" else -1
        assert 0 <= going <= 2
    assert all(run.finished for run in runs)
    assert serve(runs, pool, pause=0) == []
    assert len(pool.named("started")) == 6


def test_a_failed_run_stops_no_other_and_is_tried_again_on_request_alone(tmp_path: Path) -> None:
    runs, pool = planned(tmp_path, "abcd"), MadePool(errors={"d": "ValueError: no", "b": "it broke"})
    ended: list[int] = []
    failed = [("b", "it broke"), ("d", "ValueError: no")]
    assert told(serve(runs, pool, ended=lambda: ended.append(1), pause=0)) == failed
    assert len(ended) == 4
    assert runs[1].record() == {"arm": "b", "budget": 8, "status": "failed", "error": "it broke"}
    assert [run.finished for run in runs] == [True, False, True, False]

    assert told(serve(runs, pool, pause=0)) == failed
    assert len(pool.named("started")) == 4

    del pool.errors["d"]
    assert told(serve(runs, pool, retry=True, pause=0)) == [("b", "it broke")]
    assert pool.named("started")[4:] == ["b", "d"]


def test_where_nothing_could_be_started_a_failed_run_keeps_its_record(tmp_path: Path) -> None:
    (run,), pool = planned(tmp_path, "a"), MadePool(errors={"a": "it broke"})
    serve([run], pool, pause=0)
    record = (run.folder / "run.json").read_text()

    def refuse(runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        assert run.record() == {}
        raise InputError("sbatch refuses the jobs")

    pool.start = refuse  # type: ignore[method-assign]
    with pytest.raises(InputError, match="sbatch refuses"):
        serve([run], pool, retry=True, pause=0)
    assert (run.folder / "run.json").read_text() == record


def test_a_run_that_ends_before_its_last_step_has_failed(tmp_path: Path) -> None:
    (run,), pool = planned(tmp_path, "a"), MadePool()
    write(run, {**FINISHED, "tokens": 4, "settings": {"seed_everything": 3}})
    pool.job = Stopped
    ((_, error),) = serve([run], pool, pause=0)
    assert "stopped before its last step" in error
    assert run.record()["status"] == "failed"
    assert run.record()["settings"] == {"seed_everything": 3}


class Stopped(MadeJob):
    def ended(self) -> bool:
        return True


@pytest.mark.parametrize("retry", [False, True])
def test_workers_at_once_train_every_run_once(retry: bool, tmp_path: Path) -> None:
    runs = planned(tmp_path, "abcdefghijklmnop")
    for run in runs[:4] if retry else ():
        write(run, {"status": "failed", "error": "before"})
    pools = [MadePool(slots=2, errors={"b": "again", "g": "broke"}) for _ in range(3)]
    together = threading.Barrier(3)

    def work(pool: MadePool) -> list[tuple[str, str]]:
        pool.together = together
        with Claims(tmp_path / "claims") as claims:
            return told(serve(runs, pool, claims, retry=retry, pause=0.001))

    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(work, pools))
    assert sorted(name for pool in pools for name in pool.named("started")) == [run.name for run in runs]
    assert results == [[("b", "again"), ("g", "broke")]] * 3
    assert all(is_dead(claim, EXPIRY) for claim in newest(tmp_path / "claims").values())


def test_a_dead_workers_run_is_taken_over_and_a_living_ones_is_waited_for(tmp_path: Path) -> None:
    runs, pool = planned(tmp_path, "ab"), MadePool()
    dead, living = Claims(tmp_path / "claims", expiry=0.5), Claims(tmp_path / "claims", beat=0.05, expiry=0.5)
    dead.take("a")
    with living:
        living.take("b")
        done = threading.Timer(1.5, lambda: (write(runs[1], FINISHED), living.release("b")))
        done.start()
        with Claims(tmp_path / "claims", beat=0.05, expiry=0.5) as claims:
            assert serve(runs, pool, claims, pause=0.01) == []
        done.join()
    assert pool.named("started") == ["a"]


def test_a_worker_that_was_thought_dead_leaves_its_run_to_the_other(tmp_path: Path) -> None:
    runs, pool = planned(tmp_path, "ab"), MadePool()
    pool.stuck["a"] = "for ever"
    other = Claims(tmp_path / "claims", expiry=-1)  # to whom everyone seems dead

    def take_over() -> None:
        while ("started", "a") not in pool.log:
            time.sleep(0.01)
        assert other.take("a")
        while ("killed", "a") not in pool.log:
            time.sleep(0.01)
        assert runs[0].record() == {}
        write(runs[0], {"status": "failed", "error": "the other's"})

    thread = threading.Thread(target=take_over)
    thread.start()
    with Claims(tmp_path / "claims", beat=0.05) as claims:
        assert told(serve(runs, pool, claims, pause=0.01)) == [("a", "the other's")]
    thread.join()
    assert pool.named("started") == ["a", "b"]


def test_ctrl_c_kills_what_runs_and_gives_up_its_claims(tmp_path: Path) -> None:
    runs, pool = planned(tmp_path, "abc"), MadePool()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Claims(tmp_path / "claims") as claims:
        pool.stuck["b"] = "for ever"
        with pytest.raises(KeyboardInterrupt):
            serve(runs, pool, claims, ended=interrupt, pause=0)
        assert pool.named("killed") == ["b"]
        assert all(is_dead(claim, EXPIRY) for claim in newest(tmp_path / "claims").values())
