import os

import numpy as np
import pytest

from ngpt_lab.data import store
from ngpt_lab.data.sources import stamps, token_files
from ngpt_lab.data.sources.token_files import NanoGPTFiles, TokenStore
from ngpt_lab.data.tokenizers import Bytes
from ngpt_lab.errors import InputError

FILES = {"train": [1, 2, 9, 3, 9, 4], "val": [9, 5, 6, 9, 7, 8, 9]}


@pytest.fixture
def nano(tmp_path):
    """A source of nanoGPT's files, and the folder for what is found in them."""

    def make(**files):
        (tmp_path / "nano").mkdir(exist_ok=True)
        for name, ids in (FILES | files).items():
            (tmp_path / "nano" / f"{name}.bin").write_bytes(np.array(ids, "<u2").tobytes())
        return NanoGPTFiles(str(tmp_path / "nano"), 10, 9), tmp_path / "kept"

    return make


def opened(source, kept):
    source.prepare(None, kept, 1)
    return source.open(None, kept)


def tokens(stream):
    return list(stream.windows(np.array([0]), len(stream))[0])


@pytest.mark.parametrize("block", [2, 2**22])
def test_files_are_read_where_they_lie_and_the_second_half_of_val_is_the_test_split(nano, monkeypatch, block):
    monkeypatch.setattr(token_files, "BLOCK", block)
    source, kept = nano()
    corpus = opened(source, kept)
    assert {name: tokens(stream) for name, stream in corpus.splits.items()} == {
        "train": [1, 2, 9, 3, 9, 4],
        "validation": [9, 5, 6],
        "test": [9, 7, 8, 9],
    }
    assert [list(stream.documents) for stream in corpus.splits.values()] == [[0, 3, 5], [0, 1], [0, 1]]
    assert {path.name for path in kept.iterdir()} == {"scan.json", "train.starts", "validation.starts", "test.starts"}
    described = corpus.describe()
    assert described["bytes"] == {"train": None, "validation": None, "test": None}
    assert (corpus.vocab_size, corpus.separator, corpus.train.bytes_per_token) == (10, 9, None)


def test_test_bin_is_the_test_split_where_it_is_there(nano):
    corpus = opened(*nano(test=[1, 1]))
    assert (tokens(corpus.test), tokens(corpus.validation)) == ([1, 1], FILES["val"])


def test_without_a_separator_a_split_is_one_document(nano):
    source, kept = nano()
    source.separator = None
    assert list(opened(source, kept).train.documents) == [0]


def test_files_are_looked_through_once_and_refused_when_they_have_changed(nano, monkeypatch):
    source, kept = nano()
    before = opened(source, kept).fingerprint
    monkeypatch.setattr(NanoGPTFiles, "_scan", None)
    os.utime(source.folder / "val.bin", ns=(1, 1))
    assert opened(source, kept).fingerprint == before
    nano(val=[9, 5, 6, 9, 7, 8, 8])
    os.utime(source.folder / "val.bin", ns=(2, 2))
    with pytest.raises(InputError, match=r"val\.bin .*not the files that were looked through into .*kept: remove"):
        opened(source, kept)


def test_the_fingerprint_is_that_of_ids_and_splits(nano):
    source, kept = nano()
    first = opened(source, kept).fingerprint
    assert opened(source, kept.with_name("again")).fingerprint == first
    other, _ = nano(train=[1, 2, 9, 3, 9, 5])
    assert opened(other, kept.with_name("other")).fingerprint != first


def test_an_id_beyond_the_vocabulary_is_refused_with_its_place(nano):
    source, kept = nano(val=[1, 2, 3, 4, 5, 10])
    with pytest.raises(InputError, match=r"val\.bin holds id 10 at token 5, and vocab_size is 10"):
        source.prepare(None, kept, 1)
    assert not (kept / "scan.json").exists()


@pytest.mark.parametrize("content", [b"", b"ab", b"abcde"])
def test_a_file_that_holds_no_whole_ids_is_refused(nano, content):
    source, kept = nano()
    (source.folder / "train.bin").write_bytes(content)
    with pytest.raises(InputError, match=rf"train\.bin has {len(content)} bytes"):
        source.prepare(None, kept, 1)


def test_a_missing_file_a_tokenizer_and_an_impossible_separator_are_refused(nano, tmp_path):
    source, kept = nano()
    with pytest.raises(InputError, match=r"holds tokens already: leave --data\.tokenizer out"):
        source.prepare(Bytes(), kept, 1)
    with pytest.raises(InputError, match=r"scan\.json cannot be read"):
        source.open(None, kept)
    (source.folder / "val.bin").unlink()
    with pytest.raises(InputError, match=r"val\.bin cannot be read \(No such file"):
        source.prepare(None, kept, 1)
    with pytest.raises(InputError, match=r"separator 10 .* no id below vocab_size 10"):
        NanoGPTFiles(str(tmp_path), 10, 10)


def test_a_store_is_read_as_it_is_without_its_text(tmp_path):
    from ngpt_lab.data.sources.text_files import TextFiles

    text = tmp_path / "text.txt"
    text.write_text("text " * 99)
    made = store.build(TextFiles(str(text)), None, tmp_path / "made")
    text.unlink()
    source = TokenStore(str(made))
    source.prepare(None, None, 1)
    assert bytes(source.open(None, None).train.windows(np.array([0]), 9)[0].tolist()) == b"text text"
    with pytest.raises(InputError, match="holds tokens already"):
        source.open(Bytes(), None)
    with pytest.raises(InputError, match=r"leave --data\.store out"):
        source.open(None, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="elsewhere holds no tokens"):
        TokenStore(str(tmp_path / "elsewhere")).prepare(None, None, 1)


def test_what_is_looked_through_is_prepared_without_a_lock_and_a_copy_is_read_once(nano, monkeypatch):
    source, kept = nano()
    opened(source, kept)
    os.utime(source.folder / "val.bin", ns=(1, 1))
    monkeypatch.setattr(token_files, "locked", None)
    hashed, sha256 = [], stamps._sha256
    monkeypatch.setattr(stamps, "_sha256", lambda address: hashed.append(address) or sha256(address))
    source.prepare(None, kept, 1)
    source.open(None, kept)
    assert hashed == [str(source.folder / "val.bin")]


def test_a_copy_is_opened_where_nothing_can_be_written(nano, monkeypatch):
    def refuse(*_):
        raise InputError("cannot be written")

    source, kept = nano()
    opened(source, kept)
    os.utime(source.folder / "val.bin", ns=(1, 1))
    monkeypatch.setattr(token_files, "write_atomically", refuse)
    assert opened(source, kept).train


def test_a_token_that_is_no_longer_below_the_vocabulary_is_refused_where_it_is_read(nano):
    source, kept = nano()
    corpus = opened(source, kept)
    status = os.stat(source.folder / "val.bin")
    nano(val=[9, 5, 6, 9, 7, 88, 9])
    os.utime(source.folder / "val.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match=r"val\.bin is damaged: token 5 is 88, and every one is below 10"):
        tokens(corpus.test)
