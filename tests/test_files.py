import errno
import os
import resource
import signal

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.files import atomic_file, write_atomically


def test_a_disk_that_is_full_is_one_sentence_and_the_file_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "before")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"file cannot be written: No space left on device"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    write_atomically(tmp_path / "file", b"bytes")
    with pytest.raises(InputError, match="file/below cannot be written"):
        write_atomically(tmp_path / "file" / "below", "text")


def test_what_goes_wrong_within_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError), atomic_file(tmp_path / "file") as file:
        file.writelines([b"half", None])
    assert not list(tmp_path.iterdir())


def test_the_name_of_the_file_is_synced_after_the_file(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.path.isdir(f"/proc/self/fd/{handle}")) or sync(handle))
    write_atomically(tmp_path / "file", "text")
    assert synced == [False, True]


def test_an_error_of_another_file_that_is_read_meanwhile_is_not_told_of_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), atomic_file(tmp_path / "file") as file:
        file.write((tmp_path / "other").read_bytes())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [10, 10**6])
def test_an_error_of_a_write_is_told_of_the_file_whether_it_is_written_at_once_or_at_the_end(tmp_path, size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        with pytest.raises(InputError, match=r"file cannot be written: File too large"):
            write_atomically(tmp_path / "file", b"a" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())
