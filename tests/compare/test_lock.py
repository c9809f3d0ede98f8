"""Two comparisons never work in one folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ngpt_lab.compare.lock import LOCK, locked
from ngpt_lab.errors import InputError


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_the_lock_names_its_process_and_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with locked(folder):
        assert (folder / LOCK).read_text() == str(os.getpid())
    assert list(folder.iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(folder):
        _ = 1 / 0
    assert list(folder.iterdir()) == []


def test_while_its_process_lives_it_is_respected_and_then_taken_over(
    tmp_path: Path, other_process: subprocess.Popen[bytes]
) -> None:
    (tmp_path / LOCK).write_text(str(other_process.pid))
    with pytest.raises(InputError, match=f"in use by another ngpt-lab compare .process {other_process.pid}"):
        locked(tmp_path).__enter__()
    assert (tmp_path / LOCK).read_text() == str(other_process.pid)
    other_process.kill()
    other_process.wait()
    with locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


def test_a_lock_that_another_is_taking_over_is_respected(tmp_path: Path, other_process: subprocess.Popen[bytes]) -> None:
    other_process.kill()
    other_process.wait()
    (tmp_path / LOCK).write_text(str(other_process.pid))
    (tmp_path / f"{LOCK}.{other_process.pid}").write_text("1")
    with pytest.raises(InputError, match="in use"):
        locked(tmp_path).__enter__()


def test_a_lock_that_names_nobody_is_respected(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    with pytest.raises(InputError, match=f"if there is no such process, remove .*{LOCK}"):
        locked(tmp_path).__enter__()


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="choose another --out"):
        locked(tmp_path / "file").__enter__()
