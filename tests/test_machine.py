"""What of the machine is used, and how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ngpt_lab import machine
from ngpt_lab.machine import devices_named

# Takes and frees a block larger than any that glibc would keep by itself, and tells how many pages had to be made anew.
PAGES = """
import resource
from ngpt_lab.machine import keep_freed_memory
{first}
def pages(size=48 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages()
print(pages())
"""


def test_freed_memory_is_used_again_without_making_its_pages_anew() -> None:
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", PAGES.format(first=first)], capture_output=True, check=True).stdout)
        for first in ("", "keep_freed_memory()")
    )
    assert given_back > 20 * max(kept, 1)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (2, 2), ("2", 2), ([0, 1], 2), ([3], 1), ("0,1", 2), ("0, 1, 5", 3), ("3,", 1),
        ("auto", None), (-1, None), ("-1", None), (0, None), ("0", None), ([], None), (",", None),
    ],
)  # fmt: skip
def test_devices_are_counted_as_lightning_counts_them(asked: object, count: int | None) -> None:
    assert devices_named(asked) == count


def test_where_there_is_no_glibc_nothing_is_asked_of_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(machine.ctypes, "CDLL")
    machine.keep_freed_memory()


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_compiled_is_kept_in_the_user_s_cache_where_that_can_be_written(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "compiled"
    folder.mkdir()
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: allowed(path, mode) and (writable or not mode & os.W_OK)
    )  # as root too
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    machine.keep_compiled()
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (str(folder) if writable else None)
