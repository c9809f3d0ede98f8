import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.report.command import main

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said does not hang on the drawings, which take most of the time."""
    monkeypatch.setattr("ngpt_lab.report.draw_plates", lambda *_: [])


def test_a_comparison_folder_gets_its_own_report_again(
    tmp_path: Path, write_comparison: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(write_comparison(tmp_path))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["claim"].startswith(summary["conditions"][0]["claims"]["ngpt"]["verdict"])


def test_a_sweep_folder_gets_its_own_report(tmp_path: Path, write_sweep: Write, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write_sweep(tmp_path, {"nemotron": 0.0, "ngpt": -0.06}))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Which part matters?" in page
    assert "ngpt-lab sweep which" in page
    assert (tmp_path / "tables" / "ablations.md").is_file()


def test_loose_runs_are_compared_in_a_folder_of_their_own(tmp_path: Path, write_run: Write) -> None:
    folders = [str(write_run(tmp_path / arm, arm=arm)) for arm in ("ngpt", "nemotron")]
    out = tmp_path / "out"
    for _ in range(2):
        main([*folders, "--out", str(out), "--baseline", "NGPT"])
    assert "ngpt-lab report" in (out / "report.html").read_text()
    assert json.loads((out / "summary.json").read_text())["conditions"][0]["candidates"] == ["Nemotron"]


def test_one_run_keeps_its_report_beside_it(tmp_path: Path, write_run: Write) -> None:
    folder = write_run(tmp_path / "run")
    main([str(folder)])
    assert (folder / "report.html").is_file()


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path, write_run: Write) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("mine")
    with pytest.raises(InputError, match="in use"):
        main([str(write_run(tmp_path / "run")), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "summary.json").read_text() == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        main([str(tmp_path / "nowhere")])
    assert not (tmp_path / "nowhere").exists()
