"""Runs that are really trained, in processes that really die."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.claims import newest, read, state
from ngpt_lab.sweep.executor import serve
from ngpt_lab.sweep.pool import LocalPool
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.train import record_failure, train

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 12
TIMES = ("time", "train/tokens_per_second")
CALLBACKS = """
import os
import signal
import time
from pathlib import Path

from lightning.pytorch import Callback


class Killed(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


class Waits(Callback):
    def on_train_batch_end(self, trainer, *args):
        folder = Path(trainer.default_root_dir)
        while trainer.global_step == 8 and not (folder.parent / "go").exists():
            (folder.parent / f"{folder.name}.waits").touch()
            time.sleep(0.02)
"""
Plan = Callable[..., PlannedRun]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    return file


@pytest.fixture(scope="module")
def plan(corpus: Path) -> Plan:
    """A run that validates every third step and keeps a checkpoint of every third."""

    def plan(folder: Path, *more: str, model: str = "ngpt", steps: int = STEPS) -> PlannedRun:
        files = [CONFIGS / "base.yaml", CONFIGS / "model" / f"{model}.yaml", CONFIGS / "size" / "debug.yaml"]
        words = [word for file in files for word in ("-c", str(file))]
        words += ["--data.source=TextFiles", f"--data.source.files={corpus}"]
        words += ["--trainer.accelerator=cpu", f"--trainer.max_steps={steps}"]
        words += ["--trainer.val_check_interval=3", "--checkpoint.every_n_train_steps=3", "--data.eval_windows=16"]
        words += ["--model.backbone.attention_dropout=0.2", *more]
        return PlannedRun(folder, tuple(words), steps, {"arm": model, "budget": steps * 512})

    return plan


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    run = plan(tmp_path_factory.mktemp("whole") / "run")
    train(run)
    assert run.finished
    return run.folder


def rows(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics, less what the clock decides."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def interrupted(whole: Path, folder: Path, step: int, after: int) -> None:
    """What is left of a run that was killed `after` rows past the one it wrote right before its checkpoint of `step`."""
    shutil.copytree(whole, folder)
    for later in range(step + 1, STEPS + 1):
        (folder / "checkpoints" / f"step-{later:06d}.ckpt").unlink(missing_ok=True)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    trained = next(index for index, row in enumerate(map(json.loads, lines)) if row["step"] == step)
    kept = lines[: trained + 1 + after]
    (folder / "metrics.jsonl").write_text("".join(kept) + '{"step": 9, "tok')
    (folder / "checkpoints" / ".last.ckpt.1234.tmp").write_text("half")
    (folder / "run.json").write_text(json.dumps(record(whole) | {"status": "running", "tokens": 0, "final": None}))


@pytest.mark.parametrize(
    ("step", "after"), [(3, 0), (3, 1), (6, 3), (STEPS, 0), (STEPS, 1), (STEPS, 2)], ids=lambda value: str(value)
)
def test_an_interrupted_run_ends_like_one_that_was_never_disturbed(
    step: int, after: int, whole: Path, plan: Plan, tmp_path: Path
) -> None:
    run = plan(tmp_path / "run")
    interrupted(whole, run.folder, step, after)
    train(run)
    assert run.finished
    assert rows(run.folder) == rows(whole)
    assert record(run.folder)["final"] == record(whole)["final"]
    times = [json.loads(line)["time"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times)
    assert not list(run.folder.rglob("*.tmp"))


def test_what_cannot_be_continued_is_done_again_from_the_start(whole: Path, plan: Plan, tmp_path: Path) -> None:
    torn, failed = plan(tmp_path / "torn"), plan(tmp_path / "failed")
    interrupted(whole, torn.folder, 6, 1)
    for checkpoint in (torn.folder / "checkpoints").glob("step-*.ckpt"):
        with checkpoint.open("r+b") as file:
            file.truncate(1000)
    interrupted(whole, failed.folder, 6, 1)
    record_failure(failed, "it broke")
    for run in (torn, failed):
        train(run)
        assert run.finished
        assert rows(run.folder) == rows(whole)
        assert record(run.folder)["error"] is None


def test_a_record_that_cannot_be_read_for_a_moment_costs_no_checkpoint(
    whole: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan(tmp_path / "run")
    interrupted(whole, run.folder, 6, 1)
    before, read = sorted(run.folder.rglob("*")), Path.read_bytes

    def stale(path: Path) -> bytes:
        if path.name == "run.json":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale)
    with pytest.raises(InputError, match=r"run\.json cannot be read \(Stale file handle\): nothing of the run was removed"):
        train(run)
    assert sorted(run.folder.rglob("*")) == before


def test_a_finished_run_is_left_alone(whole: Path, plan: Plan) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    train(plan(whole))
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_the_environment_of_a_run_is_its_own(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr("ngpt_lab.training.cli.CLI", lambda *args, **more: seen.append(os.environ.get("WANDB_TAGS")))
    run = plan(tmp_path / "run")
    train(PlannedRun(run.folder, run.arguments, run.steps, run.labels, {"WANDB_TAGS": "mine"}))
    assert seen == ["mine"]
    assert "WANDB_TAGS" not in os.environ


def worker(folder: Path, runs: list[PlannedRun]) -> subprocess.Popen[bytes]:
    """A process that serves runs, as `ngpt-lab sweep` does."""
    code = f"""
from pathlib import Path
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.executor import serve
from ngpt_lab.sweep.pool import LocalPool
from ngpt_lab.sweep.run import PlannedRun

if __name__ == "__main__":
    runs = [PlannedRun(Path(folder), words, {STEPS}, dict(arm="a", budget=1))
            for folder, words in {[(str(run.folder), run.arguments) for run in runs]!r}]
    with Claims(Path({str(folder)!r}, "claims")) as claims, LocalPool(1, "cpu", threads=1) as pool:
        assert serve(runs, pool, claims) == []
"""
    (folder / "worker.py").write_text(code)
    return subprocess.Popen([sys.executable, str(folder / "worker.py")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_of_two_workers_one_is_killed_and_the_other_finishes_every_run_once(whole: Path, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(CALLBACKS)
    runs = [plan(tmp_path / name, "--trainer.callbacks=deadly.Waits") for name in ("a", "b")]
    with worker(tmp_path, runs) as first, worker(tmp_path, runs) as second:
        deadline = time.monotonic() + 120
        while not all((tmp_path / f"{run.name}.waits").exists() for run in runs):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert {read(claim)["pid"] for claim in newest(tmp_path / "claims").values()} == {first.pid, second.pid}
        first.kill()
        first.wait()
        (tmp_path / "go").touch()
        _, errors = second.communicate(timeout=120)
        assert second.returncode == 0, errors.decode()
    for run in runs:
        assert run.finished
        assert rows(run.folder) == rows(whole)
    assert len(list((tmp_path / "claims").glob("*.0001"))) == 2
    assert len(list((tmp_path / "claims").glob("*.0002"))) == 1


def test_one_bad_run_costs_no_other(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deadly.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    runs = [
        plan(tmp_path / "killed", "--trainer.callbacks=deadly.Killed"),
        plan(tmp_path / "unknown", "--model.backbone.dims.d_modle=3"),
        plan(tmp_path / "diverged", "--model.optimizer.lr=1e30", model="nemotron"),
        plan(tmp_path / "plain"),
    ]
    with LocalPool(1, "cpu", threads=1) as pool:
        failed = {run.name: error for run, error in serve(runs, pool)}
    assert list(failed) == ["killed", "unknown", "diverged"]
    assert failed["killed"] == "its process was killed (signal 9: out of memory?)"
    assert "d_modle" in failed["unknown"]
    assert "not finite" in failed["diverged"]
    records = [run.record() for run in runs]
    assert [found["status"] for found in records] == ["failed", "failed", "failed", "finished"]
    assert records[0]["error"] == failed["killed"]
    assert records[0]["settings"]["seed_everything"] == 0
    assert records[1] == {"arm": "ngpt", "budget": STEPS * 512, "status": "failed", "error": failed["unknown"]}
    assert records[2]["error"] in failed["diverged"]
    assert all(found["arm"] for found in records)
    printed = capsys.readouterr().out.splitlines()
    assert "killed failed: its process was killed (signal 9: out of memory?) (0/4 runs finished, 1 failed)" in printed
    assert printed[-1] == "plain finished (1/4 runs finished, 3 failed)"


DDP = ("--trainer.devices=2", "--trainer.strategy=DDPStrategy", "--trainer.strategy.process_group_backend=gloo")


@pytest.mark.slow
def test_a_run_of_two_processes_is_trained_by_two_and_both_end_with_the_worker(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    run = replace(plan(tmp_path / "run", *DDP, "--trainer.callbacks=deadly.Waits"), devices=2)
    with LocalPool(1, "cpu", devices=2, threads=1) as pool:
        (job,) = pool.start([(run, 0)])
        until((tmp_path / "run.waits").exists)
        group = descendants(pool._workers[0].process.pid)
        assert len([process for process in group if b"ngpt_lab.sweep.separate" in command_line(process)]) == 2
        job.kill()
        until(lambda: not any(map(is_alive, group)))
        (tmp_path / "go").touch()
        assert serve([run], pool) == []
    assert run.finished
    assert [row["train/loss"] for row in rows(run.folder) if "train/loss" in row]
    assert record(run.folder)["resumed"][0]["step"] == 6


@pytest.mark.parametrize("way", ["pool", "separate"])
@pytest.mark.parametrize("after", [0.0, 0.2], ids=["at once", "in its imports"])
def test_a_process_whose_starter_is_killed_before_it_has_begun_trains_nothing(
    way: str, after: float, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "deadly.py").write_text(CALLBACKS)
    run = plan(tmp_path / "run", "--trainer.callbacks=deadly.Waits")
    starts = {
        "pool": "LocalPool(1, 'cpu', threads=1).start([(run, 0)])[0].process",
        "separate": "separate.start(run, False)",
    }
    (tmp_path / "starter.py").write_text(f"""
import time
from pathlib import Path
from ngpt_lab.sweep import separate
from ngpt_lab.sweep.pool import LocalPool
from ngpt_lab.sweep.run import PlannedRun

if __name__ == "__main__":
    run = PlannedRun(Path({str(run.folder)!r}), {run.arguments!r}, {STEPS}, dict(arm="a", budget=1))
    process = {starts[way]}
    print(process.pid, flush=True)
    time.sleep(600)
""")
    with subprocess.Popen([sys.executable, str(tmp_path / "starter.py")], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        process = int(starter.stdout.readline())
        time.sleep(after)
        starter.kill()
    until(lambda: not is_alive(process), 60)
    assert not (tmp_path / "run.waits").exists()
    assert run.record() == {}


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_of_several_is_the_runs_error(plan: Plan, tmp_path: Path) -> None:
    run = replace(plan(tmp_path / "run", *DDP, "--model.backbone.dims.d_modle=3"), devices=2)
    with LocalPool(1, "cpu", devices=2, threads=1) as pool:
        ((_, error),) = serve([run], pool)
    assert "d_modle" in error
    assert run.record()["error"] == error


def until(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def descendants(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def is_alive(process: int) -> bool:
    return state(process) not in (None, "ended")
