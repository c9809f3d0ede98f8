"""What happens when not every run ends well."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ngpt_lab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
CALLBACKS = """
import os
import signal

from lightning.pytorch import Callback


class Killed(Callback):
    def on_train_start(self, trainer, module):
        os.kill(os.getpid(), signal.SIGKILL)


class Terminated(Callback):
    def on_train_batch_end(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)


class Stopped(Callback):
    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = True
"""


def arm(name: str, file: Path, config: str = "seed_everything: 0") -> list[str]:
    file.write_text(config)
    files = [CONFIGS / "model" / "ngpt.yaml", CONFIGS / "size" / "debug.yaml", file]
    return ["--arm", f"{name}={','.join(str(path) for path in files)}"]


def command(folder: Path, config: str, budgets: list[int], workers: int) -> list[str]:
    """A comparison of a plain arm with one that has `config` as well; longer budgets are trained first."""
    corpus = folder / "words.txt"
    draw = random.Random(0)
    corpus.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    arms = [*arm("odd", folder / "odd.yaml", config), *arm("plain", folder / "plain.yaml")]
    words = ["compare", *arms, "--baseline", "plain", "--precision", "32-true", "--rounds", "2", "--seeds", "1"]
    words += ["--budgets", *map(str, budgets), "--out", str(folder / "out"), "--workers", str(workers)]
    return [*words, "--set=--data.source=TextFiles", f"--set=--data.source.files={corpus}", "--set=--trainer.accelerator=cpu"]


def statuses(folder: Path) -> dict[str, str]:
    found = sorted((folder / "out" / "runs").glob("*/run.json"))
    return {path.parent.name: json.loads(path.read_text())["status"] for path in found}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_ctrl_c_stops_all_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = command(tmp_path, "seed_everything: 0", [1024, 512 * 100], workers=2)
    # A test runner in the background may have SIGINT ignored, which processes inherit.
    undo = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{undo}; from ngpt_lab.cli import main; main({arguments})"
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    runs = tmp_path / "out" / "runs"
    deadline = time.monotonic() + 300
    while not list(runs.glob("*/metrics.jsonl")) and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    _, told = started.communicate(timeout=120)
    assert started.returncode == 130
    after_the_corpus = [line for line in told.splitlines() if not line.startswith("Data: ")]
    assert after_the_corpus == ["ngpt-lab: interrupted; the same command goes on with what is missing"]
    assert set(statuses(tmp_path).values()) == {"running"}
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    time.sleep(2)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    assert not (tmp_path / "out" / "compare.lock").exists()

    main(arguments)
    assert set(statuses(tmp_path).values()) == {"finished"}
    assert len(statuses(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("end", "number"), [("Killed", 9), ("Terminated", 15)])
def test_a_process_that_dies_costs_its_own_run_alone(
    end: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deadly.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    config = f"trainer: {{callbacks: [{{class_path: deadly.{end}}}]}}"
    told = refused(command(tmp_path, config, [1024], workers=1), capsys)
    assert f"1 of 2 runs failed; the first, {tmp_path / 'out' / 'runs' / 'odd-1024-s1'}, with its process was killed" in told
    assert f"signal {number}" in told
    assert statuses(tmp_path) == {"odd-1024-s1": "failed", "plain-1024-s1": "finished"}
    assert not (tmp_path / "out" / "compare.lock").exists()


def test_runs_that_fail_do_not_stop_the_others_and_are_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(tmp_path, "model: {init_args: {optimizer: {init_args: {lr: 1.0e+30}}}}", [1024, 2048], workers=2)
    for _ in range(2):
        told = refused(arguments, capsys)
        assert "2 of " in told
        assert "the first, " + str(tmp_path / "out" / "runs" / "odd-2048-s1") in told
        assert "not finite" in told
        assert statuses(tmp_path) == {
            "odd-1024-s1": "failed",
            "odd-2048-s1": "failed",
            "plain-1024-s1": "finished",
            "plain-2048-s1": "finished",
        }
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert {one["name"] for one in summary["not_used"]} == {"odd-1024-s1", "odd-2048-s1"}
        (tmp_path / "out" / "summary.json").unlink()


@pytest.mark.slow
def test_a_run_that_stops_early_is_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "early.py").write_text(CALLBACKS)
    monkeypatch.syspath_prepend(tmp_path)
    config = "trainer: {callbacks: [{class_path: early.Stopped}]}"
    assert "1 of 2 runs failed" in (told := refused(command(tmp_path, config, [2048], workers=2), capsys))
    assert "stopped before its last step" in told
