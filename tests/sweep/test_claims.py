"""Several workers, one run: whose is it?"""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.sweep.claims import EXPIRY, Claims, is_dead, newest, read

WORKERS, NEVER = 4, 1e9


def live(folder: Path, expiry: float = EXPIRY) -> dict[str, dict[str, Any]]:
    """The runs that some worker holds, and what it says of itself."""
    return {name: read(path) for name, path in newest(folder).items() if not is_dead(path, expiry)}


def age(claim: Path, seconds: float) -> None:
    """Let a claim look as if it had not been renewed for so long."""
    then = claim.stat().st_mtime - seconds
    os.utime(claim, (then, then))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that holds the run called a."""
    code = f"from pathlib import Path; from ngpt_lab.sweep.claims import Claims; Claims(Path({str(tmp_path)!r})).take('a')"
    with subprocess.Popen([sys.executable, "-c", f"{code}; input()"], stdin=subprocess.PIPE) as process:
        wait_for(tmp_path / "a.0001")
        yield process
        process.kill()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, WORKERS - 1), st.sampled_from(["take", "renew", "release", "stall", "crash"])), max_size=25
    )
)
def test_a_run_never_has_two_holders_and_is_free_where_it_has_none(moves: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = [Claims(folder, expiry=100) for _ in range(WORKERS)]
        holder: int | None = None
        thought_dead = True
        for worker, move in moves:
            claims = workers[worker]
            mine = worker == holder
            if move == "take" and "a" not in claims._held:
                assert claims.take("a") == thought_dead
                holder, thought_dead = (worker, False) if thought_dead else (holder, thought_dead)
            elif move == "renew":
                claims._renew("a")
                thought_dead = thought_dead and not mine
            elif move == "release" and "a" in claims._held:
                claims.release("a")
                holder, thought_dead = (None, True) if mine else (holder, thought_dead)
            elif move == "stall" and mine:
                age(claims._held["a"], 101)
                thought_dead = True
            elif move == "crash":
                workers[worker] = Claims(folder, expiry=100)
                holder = None if mine else holder
            assert [index for index, one in enumerate(workers) if one.holds("a")] == ([] if holder is None else [holder])
            assert ("a" in live(folder, 100)) == (not thought_dead)


@pytest.mark.parametrize("before", ["nobody", "a dead worker"])
def test_of_many_threads_that_race_for_a_run_one_wins(before: str, tmp_path: Path) -> None:
    for attempt in range(20):
        name = f"run-{attempt}"
        if before != "nobody":
            Claims(tmp_path).take(name)
            age(newest(tmp_path)[name], 121)
        workers, start = [Claims(tmp_path) for _ in range(8)], Barrier(8)

        def race(claims: Claims, name: str = name, start: Barrier = start) -> bool:
            start.wait()
            return claims.take(name)

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(race, workers)) == 1


def test_of_processes_that_race_for_a_dead_workers_runs_each_run_goes_to_one(
    tmp_path: Path, other_process: subprocess.Popen[bytes]
) -> None:
    other_process.kill()
    other_process.wait()
    code = f"""
import time
from pathlib import Path
from ngpt_lab.sweep.claims import Claims
folder = Path({str(tmp_path)!r})
claims = Claims(folder)
print("ready", flush=True)
input()
print(*[name for name in "abcdefghijkl" if claims.take(name)], flush=True)
input()
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    taken = [racer.stdout.readline().split() for racer in racers if racer.stdout is not None]
    for racer in racers:
        racer.communicate("end\n")
    assert sorted(name for names in taken for name in names) == list("abcdefghijkl")


def test_a_claim_that_is_renewed_is_respected_and_one_that_is_not_is_taken_over(tmp_path: Path) -> None:
    stalled, other = Claims(tmp_path, beat=0.05, expiry=0.6), Claims(tmp_path, beat=0.05, expiry=0.6)
    with stalled:
        assert stalled.take("a")
        for _ in range(10):
            assert not other.take("a")
            time.sleep(0.1)
        assert stalled.lost() == set()
        # Suspended: its thread rests, and goes on after the other has taken the run over.
        with stalled._lock:
            time.sleep(0.8)
            assert other.take("a")
            with other:
                time.sleep(0.1)
        assert not stalled.holds("a")
        deadline = time.monotonic() + 10
        while stalled.lost() != {"a"}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        stalled.release("a")
        assert stalled.lost() == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.0001", "a.0002"]


def test_a_killed_process_of_this_machine_is_dead_at_once_and_a_living_one_is_not(
    tmp_path: Path, other_process: subprocess.Popen[bytes]
) -> None:
    claims = Claims(tmp_path, expiry=NEVER)
    assert live(tmp_path, NEVER)["a"]["pid"] == other_process.pid
    assert not claims.take("a")
    os.kill(other_process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "a" in live(tmp_path, NEVER):  # before its parent has taken note of its end
        assert time.monotonic() < deadline
    assert claims.take("a")
    other_process.wait()


def test_a_number_that_is_another_process_now_is_not_the_holder(tmp_path: Path) -> None:
    assert Claims(tmp_path).take("a")
    claim = tmp_path / "a.0001"
    holder = json.loads(claim.read_text())
    claim.write_text(json.dumps(holder | {"started": "1"}))
    assert "a" not in live(tmp_path)


def test_of_another_machines_process_nothing_is_known(tmp_path: Path, other_process: subprocess.Popen[bytes]) -> None:
    other_process.kill()
    other_process.wait()
    claim = tmp_path / "a.0001"
    holder = json.loads(claim.read_text())
    for other in ({"host": "elsewhere"}, {"machine": "another boot"}, {"machine": None}):
        claim.write_text(json.dumps(holder | other))
        assert not Claims(tmp_path).take("a")
    for unknown in ("", "{", "[]"):
        claim.write_text(unknown)
        assert not Claims(tmp_path).take("a")


def test_a_claims_age_is_told_by_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Claims(tmp_path).take("a")
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert not Claims(tmp_path).take("a")
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert not Claims(tmp_path).take("a")
    age(tmp_path / "a.0001", 121)
    assert Claims(tmp_path).take("a")


def test_names_with_dots_and_numbers_are_kept_apart(tmp_path: Path) -> None:
    names = ["a", "a.0001", "a.1", "a-0.5"]
    assert [Claims(tmp_path).take(name) for name in names] == [True] * 4
    assert set(newest(tmp_path)) == set(names)


def test_on_the_way_out_everything_is_given_up(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        assert claims.take("a")
        assert claims.take("b")
        claims.release("a")
        assert set(live(tmp_path)) == {"b"}
    assert live(tmp_path) == {}
    assert Claims(tmp_path).take("b")


def test_a_job_and_who_waits_for_it_hold_a_run_together(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    with Claims(folder, beat=0.02) as waiting, Claims(folder, beat=0.02) as job, Claims(folder) as other:
        assert waiting.take("run", "ticket")
        assert job.take("run", "ticket")
        assert not other.take("run")
        assert not other.take("run", "another ticket")
        waiting.leave("run")
        assert job.holds("run")
        assert not waiting.holds("run")
        assert not other.take("run")


def test_who_waits_follows_a_job_that_begins_after_its_claim_had_run_out(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    waiting, job, other = Claims(folder), Claims(folder, expiry=-1), Claims(folder, expiry=-1)
    assert waiting.take("run", "ticket")
    assert job.take("run", "ticket")
    assert sorted(file.name for file in folder.iterdir()) == ["run.0001", "run.0002"]
    assert waiting.holds("run")
    waiting.release("run")
    assert newest(folder)["run"].stat().st_mtime == 0
    assert other.take("run")
    assert not job.holds("run")


def test_a_shared_claim_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    code = f"from ngpt_lab.sweep.claims import Claims; from pathlib import Path; Claims(Path({str(tmp_path)!r})).take"
    subprocess.run([sys.executable, "-c", f"{code}('alone')"], check=True)
    subprocess.run([sys.executable, "-c", f"{code}('shared', 'ticket')"], check=True)
    assert Claims(tmp_path).take("alone")
    assert not Claims(tmp_path).take("shared")
    assert Claims(tmp_path).take("shared", "ticket")


@pytest.mark.parametrize("listed", [[], ["run.0001"]], ids=["nothing", "what is dead"])
def test_an_old_listing_keeps_no_job_from_the_claim_that_it_has_the_ticket_of(
    listed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, job, other = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    if listed:
        assert other.take("run")
        other.release("run")
    assert waiting.take("run", "ticket")
    monkeypatch.setattr("os.listdir", lambda folder: listed)  # as NFS may say for a while
    assert not other.take("run")
    assert not other.take("run", "another ticket")
    assert job.take("run", "ticket")
    assert job.holds("run")
    assert waiting.holds("run")


@pytest.mark.parametrize("call", ["exists", "utime"])
def test_a_file_system_that_fails_for_a_moment_ends_no_renewal(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with Claims(tmp_path, beat=0.01) as claims:
        assert claims.take("run")
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.exists" if call == "exists" else "os.utime", fails)
            time.sleep(0.1)
        age(tmp_path / "run.0001", 100)
        deadline = time.monotonic() + 10
        while time.time() - (tmp_path / "run.0001").stat().st_mtime > 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert claims.lost() == set()
