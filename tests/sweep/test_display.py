"""What is said of runs while they run."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ngpt_lab.sweep import records
from ngpt_lab.sweep.display import Display, told
from ngpt_lab.sweep.records import newest_row
from ngpt_lab.sweep.run import PlannedRun


def run(folder: Path, *rows: str) -> PlannedRun:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(rows))
    return PlannedRun(folder, (), 40, {})


def row(step: int, loss: float | None, time: float) -> str:
    return json.dumps({"step": step, "time": time, "train/loss": loss}) + "\n"


def test_a_file_that_is_being_written_tells_its_last_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, half, evaluation = row(10, 2.5, 1.0), row(11, 2.0, 1.1)[:-9], '{"step": 10, "time": 1.0, "val/loss": 3.0}\n'
    file = run(tmp_path / "run", row(9, 3.0, 0.9), whole, evaluation, half).folder / "metrics.jsonl"
    assert newest_row(file) == json.loads(whole) | {"val/loss": 3.0}
    monkeypatch.setattr(records, "_TAIL", len(half) + len(evaluation) + 20)  # whose first row is cut off
    assert newest_row(file) == json.loads(evaluation)
    assert newest_row(tmp_path / "missing") == {}
    assert {told(row, 40) for row in ({}, json.loads(evaluation))} == {"starts"}


def test_a_terminal_shows_what_runs_how_far_it_is_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(tmp_path / "a[bold]", row(10, 2.5, 30.0)), run(tmp_path / "b", row(20, None, 5.0)), run(tmp_path / "c")]
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    display = Display(runs, console)
    display.update(runs[:2], [])
    (runs[0].folder / "metrics.jsonl").write_text(row(20, 2.25, 60.0))
    clock[0] += 30
    display.update(runs[:2], runs[2:])
    screen = Console(file=io.StringIO(), width=120)
    screen.print(display.progress.get_renderable())
    shown = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split()[0] for line in shown] == ["all", "a[bold]", "b"]
    # 10 steps in 30 seconds, and 80 of all 120 steps to go.
    assert "40/120 steps 0/3 runs finished, 1 at other workers, 4 min 0 s left" in shown[0]
    assert "20/40 steps" in shown[1]
    assert "loss 2.2500, 1 min 0 s left" in shown[1]
    assert "loss not finite, 5.0 s left" in shown[2]

    display.settled(runs[0], None, here=True)
    display.settled(runs[1], "it [broke]", here=True)
    display.update([], [])
    assert [task.description for task in display.progress.tasks] == ["all"]
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "b failed: it [broke] (1/3 runs finished, 1 failed)" in printed
    assert "a[bold] finished" not in printed


def test_without_a_terminal_every_end_is_a_line_and_nothing_else_is_said(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, row(10, 2.5, 3.0)) for name in "abc"]
    console = Console(file=io.StringIO(), width=40)
    with Display(runs, console) as display:
        display.settled(runs[0], None, here=False)
        display.update(runs[1:], [])
        display.settled(runs[1], None, here=True)
        display.settled(runs[2], "ValueError: " + 30 * "long ", here=True)
        display.update([], [])
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "b finished (2/3 runs finished)",
        f"c failed: ValueError: {30 * 'long '} (2/3 runs finished, 1 failed)",
    ]
