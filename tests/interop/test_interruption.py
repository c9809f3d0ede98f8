"""An import or an export that is asked to end leaves nothing behind."""

import os
import signal
from pathlib import Path

import pytest

from ngpt_lab.cli import main
from ngpt_lab.interop.new_folder import new_folder


@pytest.fixture
def _harmless():
    """A signal that is not turned into anything fails the test and no more."""
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nothing has taken the signal"))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_harmless")
@pytest.mark.parametrize("command", ["import", "export"])
def test_sigterm_leaves_no_half_of_a_folder(command, tmp_path, monkeypatch, capsys):
    def written(_source: Path, target: Path, *_: object) -> None:
        with new_folder(target) as made:
            (made / "weights").write_text("many")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(f"ngpt_lab.interop.{command}_run.{command}_{'folder' if command == 'import' else 'run'}", written)
    with pytest.raises(SystemExit) as end:
        main([command, str(tmp_path / "source"), str(tmp_path / "target")])
    assert end.value.code == 143
    assert capsys.readouterr().err == "ngpt-lab: interrupted by SIGTERM\n"
    assert not list(tmp_path.iterdir())
