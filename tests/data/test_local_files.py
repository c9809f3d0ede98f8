import gzip
import os

import pytest

from ngpt_lab.data.local_files import local_files
from ngpt_lab.errors import InputError


def test_documents_are_joined_in_path_order_and_cut_90_5_5_whatever_the_patterns(tmp_path):
    (tmp_path / "b.txt").write_text("b" * 99)
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("a" * 99)
    corpus = local_files([str(tmp_path / "b.*"), str(tmp_path / "*"), str(tmp_path / "b.txt")])
    whole = b"".join(part.numpy().tobytes() for part in corpus.splits.values())
    assert whole == b"a" * 99 + b"\0" + b"b" * 99 + b"\0"
    assert [len(part) for part in corpus.splits.values()] == [180, 10, 10]


def test_a_name_with_brackets_is_taken_as_it_is(tmp_path):
    (tmp_path / "a[1].txt").write_text("text")
    assert local_files([str(tmp_path / "a[1].txt")]).source == "a[1].txt"


def test_the_fingerprint_follows_the_contents_and_not_the_name(tmp_path):
    for name, text in {"a.txt": "same", "b.txt": "same", "c.txt": "other"}.items():
        (tmp_path / name).write_text(text * 20)
    a, b, c = (local_files([str(tmp_path / f"{name}.txt")]).fingerprint for name in "abc")
    assert a == b != c


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    first = local_files([str(path)])
    assert local_files([str(path)]) is first
    path.write_text("now it is longer")
    os.utime(path, ns=(1, 1))
    assert local_files([str(path)]).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.txt", b"", "is empty"),
        ("empty.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("zero.txt", b"te\0xt", "is not text: byte 2"),
        ("latin.txt", b"caf\xe9 au lait", "is not text: byte 3"),
        ("binary.gz", gzip.compress(b"\xff\xfe", mtime=0), "is not text"),
        ("plain.gz", b"text", "is not a whole gzip file"),
        ("half.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], "is not a whole gzip file"),
        ("page.html", b"text", "neither .txt nor .gz"),
    ],
)
def test_a_file_that_is_not_text_is_refused_by_name(tmp_path, name, content, complaint):
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{complaint}"):
        local_files([str(tmp_path / "*")])


def test_missing_files_folders_and_empty_lists_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no file matches .*missing\.txt"):
        local_files([str(tmp_path / "missing.txt")])
    with pytest.raises(InputError, match=f"{tmp_path} .*is a folder"):
        local_files([str(tmp_path)])
    with pytest.raises(InputError, match=r"--data\.files is an empty list"):
        local_files([])
