"""The entry point: light where it can be, one sentence where it must refuse."""

import subprocess
import sys

import pytest

from ngpt_lab.cli import main


def test_help_does_not_load_torch() -> None:
    probe = "import sys; from ngpt_lab.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout


def test_the_module_and_the_command_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "ngpt_lab", "train"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "ngpt-lab: 'train' is no command: ngpt-lab --help lists them\n"


@pytest.mark.parametrize("command", [["compare"], ["report", "runs"], ["bench", "step"]])
def test_a_wrong_option_is_told_in_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--no-such-option"])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "--no-such-option" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("compare", "ngpt-lab: interrupted; the same command goes on with what is missing\n"),
        ("bench", "ngpt-lab: interrupted\n"),
    ],
)
def test_ctrl_c_is_one_line(
    command: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ngpt_lab.cli.run", interrupt)
    with pytest.raises(SystemExit) as stop:
        main([command])
    assert stop.value.code == 130
    assert capsys.readouterr().err == told
