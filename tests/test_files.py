import errno
import os

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
