import copy
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.data import store
from ngpt_lab.data.sources import stamps
from ngpt_lab.data.sources.mixture import Mixture
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import place
from ngpt_lab.data.store.manifest import MANIFEST, read_manifest
from ngpt_lab.data.tokenizers import BPE
from ngpt_lab.errors import InputError


@pytest.fixture
def made(sample, tmp_path):
    return store.build(sample, BPE(300), tmp_path / "a", 1, 5000)


def edit(folder, change):
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_store_opens_with_its_source_and_without_and_says_what_it_is(made, sample):
    corpus = store.open_store(sample, BPE(300), made)
    described = corpus.describe()
    assert described == store.open_folder(made).describe()
    assert described["tokenizer"] == "BPE 300"
    assert described["tokens"]["train"] == len(corpus.train)
    assert corpus.splits["train"].bytes_per_token == corpus.train.bytes / len(corpus.train) > 1.1
    assert (corpus.vocab_size, corpus.separator) == (300, 0)
    sums = [np.sum(corpus.train.windows(np.array([0]), len(corpus.train)) == corpus.separator), len(corpus.train.documents)]
    assert sums == [20, 20]
    assert store.verify(made).fingerprint == corpus.fingerprint


def test_a_finished_store_is_found_and_not_made_again(made, sample):
    sample.reads.clear()
    assert store.build(sample, BPE(300), made, 2, 77) == made
    assert not sample.reads


@pytest.mark.parametrize("name", ["train-00001.bin", "validation.starts", "test-00000.bin"])
def test_a_shortened_or_missing_file_is_refused_by_name_before_it_is_read(made, name):
    (made / name).write_bytes((made / name).read_bytes()[:-2])
    with pytest.raises(InputError, match=rf"{name} has \d+ bytes instead of \d+: remove"):
        store.open_folder(made)
    (made / name).unlink()
    with pytest.raises(InputError, match=rf"{name} cannot be read"):
        store.open_folder(made)


@pytest.mark.parametrize("name", ["train-00001.bin", "validation.starts", "tokenizer.json"])
def test_a_flipped_bit_is_found_by_verify(made, name):
    content = bytearray((made / name).read_bytes())
    content[len(content) // 2] ^= 1
    (made / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is (damaged|not the tokenizer)"):
        store.verify(made)


def test_another_tokenizer_and_a_changed_source_are_told_by_name(made, sample):
    with pytest.raises(InputError, match=r"made by BPE \(vocab_size 300, .*asks for BPE \(vocab_size 301, "):
        store.build(sample, BPE(301), made)
    with pytest.raises(InputError, match=r"made by BPE .* asks for Bytes"):
        store.open_store(sample, None, made)
    sample.mark = "b"
    with pytest.raises(InputError, match=r"documents has changed since it was tokenized into .*\(a is b now\): remove"):
        store.open_store(sample, BPE(300), made)


def test_where_nothing_is_named_the_folder_depends_on_source_and_tokenizer(sample, tmp_path, monkeypatch):
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="holds no tokens"):
        store.open_store(sample, None, None)
    folders = {store.build(sample, tokenizer) for tokenizer in (None, BPE(300))}
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "cache" / "tokens"}
    assert store.open_store(sample, None, None).tokenizer == "bytes"
    assert store.default_folder("../../etc/pass wd", {}).name.startswith("etc-pass-wd-")


def hostile(content, path, value):
    *above, last = path
    for key in above:
        content = content[key]
    content[last] = value


FIRST = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*FIRST, "file"), "../../../etc/passwd"),
        ((*FIRST, "file"), "/etc/passwd"),
        ((*FIRST, "file"), "train-00001.bin"),
        ((*FIRST, "tokens"), -1),
        ((*FIRST, "tokens"), 2**60),
        ((*FIRST, "tokens"), 1e3),
        ((*FIRST, "tokens"), True),
        ((*FIRST, "sha256"), "x" * 64),
        (("splits", "train", "tokens_sha256"), "0" * 64),
        (("splits", "train", "tokens_sha256"), None),
        (("splits", "train", "tokens"), 10**400),
        (("splits", "train", "documents"), 2**52),
        (("splits", "train", "shards"), [[]]),
        (("splits", "test"), None),
        (("splits",), []),
        (("dtype",), "object"),
        (("format",), "1"),
        (("shard_tokens",), 0),
        (("tokenizer", "vocab_size"), 2**40),
        (("tokenizer", "vocab_size"), 70_000),
        (("tokenizer", "separator"), 300),
        (("shared_share", "test"), float("nan")),
        (("fingerprint",), "0" * 64),
    ],
)
def test_a_hostile_manifest_is_one_sentence(made, path, value):
    edit(made, lambda content: hostile(content, path, value))
    with pytest.raises(InputError, match=r"manifest\.json is damaged") as refused:
        store.open_folder(made)
    assert len(str(refused.value).replace(str(made), "")) < 300


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 10**6, b'{"format": 1}'])
def test_what_is_no_manifest_is_one_sentence(made, content):
    (made / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        store.open_folder(made)


def test_an_absurdly_large_manifest_is_not_read(made):
    with (made / MANIFEST).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"manifest\.json has 1099511627776 bytes"):
        store.open_folder(made)


def places(content, path=()):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


@pytest.fixture(scope="module")
def valid(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("valid")
    return store.build(documents(train=[[b"text"] * 9], test=[[b"a"]]), None, folder / "a", 1, 10)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_a_field_of_a_manifest_becomes_it_is_read_as_it_was_or_refused(valid, tmp_path_factory, data):
    content = json.loads((valid / MANIFEST).read_text())
    *above, last = data.draw(st.sampled_from([place for place in places(content) if place]))
    changed = copy.deepcopy(content)
    hostile(changed, (*above, last), data.draw(JSON))
    folder = tmp_path_factory.mktemp("changed")
    (folder / MANIFEST).write_text(json.dumps(changed))
    try:
        read = read_manifest(folder)
    except InputError:
        return
    assert {"documents", "bytes", "starts_sha256", "name", "vocab_size", "separator"} >= {last} or (
        read == read_manifest(valid) or above == ["shared_share"] or last == "shared_share"
    )


def test_starts_that_are_not_those_of_documents_are_refused_at_open(made):
    path = made / "train.starts"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"train\.starts is damaged"):
        store.open_folder(made)


def test_a_damaged_token_ends_reading_with_the_name_of_its_file(made):
    path = made / "train-00001.bin"
    content = bytearray(path.read_bytes())
    content[7] = 0xFF
    path.write_bytes(content)
    train = store.open_folder(made).train
    with pytest.raises(InputError, match=r"train-00001\.bin is damaged: token 3 is 65\d+, and every one is below 300"):
        train.windows(np.array([4990]), 100)


@pytest.mark.parametrize("name", ["train-00001.bin", "test.starts"])
def test_a_file_of_a_store_that_leads_elsewhere_is_refused(made, tmp_path, name):
    (made / name).rename(tmp_path / "secret")
    (made / name).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=rf"{name} is no file of its own but leads elsewhere"):
        store.open_folder(made)


def test_a_checksum_of_the_manifest_that_is_not_its_files_is_found_by_verify(made):
    edit(made, lambda content: hostile(content, (*FIRST, "sha256"), "0" * 64))
    with pytest.raises(InputError, match=r"train-00000\.bin is damaged"):
        store.verify(made)


def test_shards_in_another_order_than_that_of_the_fingerprint_are_found_by_verify(made):
    def exchange(content):
        shards = content["splits"]["train"]["shards"]
        shards[0]["sha256"], shards[1]["sha256"] = shards[1]["sha256"], shards[0]["sha256"]

    edit(made, exchange)
    first, second = made / "train-00000.bin", made / "train-00001.bin"
    for path, content in zip((first, second), (second.read_bytes(), first.read_bytes()), strict=True):
        path.write_bytes(content)
    store.open_folder(made)
    with pytest.raises(InputError, match=r"manifest\.json is damaged \(its checksum of train differs\)"):
        store.verify(made)


def test_the_fingerprint_is_that_of_the_tokens_however_they_are_cut_into_shards(made, sample, documents, tmp_path):
    fingerprint = store.verify(made).fingerprint
    for size in (2**26, 4999, 1000):
        assert store.verify(store.build(sample, BPE(300), tmp_path / str(size), 1, size)).fingerprint == fingerprint
    other = documents(**{**sample.splits, "test": sample.splits["test"][1:]})
    assert read_manifest(store.build(other, BPE(300), tmp_path / "other", 1, 5000)).fingerprint != fingerprint


def test_a_list_of_more_files_than_can_be_read_is_refused_before_anything_is_made(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(place, "LARGEST_SOURCE", 1000)
    sample.mark = "x" * 900
    with pytest.raises(InputError, match=r"documents has too many files: a list of them would have \d+ bytes"):
        store.build(sample, None, tmp_path / "a")
    assert not sample.reads
    assert not list(tmp_path.iterdir())
    sample.mark = "x" * 500
    assert store.build(sample, None, tmp_path / "a")


def test_a_text_that_was_copied_is_read_once_more_and_never_again(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name} " * 99)
    files = TextFiles([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    source = Mixture([files, TextFiles(str(tmp_path / "b.txt"))], [1, 1])
    folder = store.build(source, None, tmp_path / "store")
    os.utime(tmp_path / "b.txt", ns=(1, 1))
    hashed, sha256 = [], stamps._sha256
    monkeypatch.setattr(stamps, "_sha256", lambda address: hashed.append(address) or sha256(address))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    store.build(source, None, folder)
    assert hashed == [str(tmp_path / "b.txt")] * 2  # once for each of the two sources that read it
    hashed.clear()
    store.open_store(source, None, folder)
    assert not hashed
    assert {path.name for path in folder.iterdir() if path.read_bytes() != before[path.name]} == {"source.json"}
    (tmp_path / "b.txt").write_text("other b " * 99)
    os.utime(tmp_path / "b.txt", ns=(2, 2))
    with pytest.raises(InputError, match=r"b\.txt has changed"):
        store.build(source, None, folder)


def test_a_store_that_can_only_be_read_opens_where_its_text_was_copied(tmp_path, monkeypatch):
    text = tmp_path / "a.txt"
    text.write_text("text " * 99)
    folder = store.build(TextFiles(str(text)), None, tmp_path / "store")
    os.utime(text, ns=(1, 1))

    def refuse(*_):
        raise InputError("cannot be written")

    monkeypatch.setattr(place, "write_atomically", refuse)
    assert store.build(TextFiles(str(text)), None, folder) == folder


def test_a_file_more_for_a_pattern_is_told_as_a_change_and_goes_to_no_other_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("text " * 99)
    files = TextFiles(str(tmp_path / "books" / "*.txt"))
    mixed = Mixture([files, TextFiles(str(tmp_path / "books" / "a.txt"))], [1, 1])
    assert store.build(files).name.startswith("books-")
    store.build(mixed)
    for name in "bcd":
        (tmp_path / "books" / f"{name}.txt").write_text("more " * 99)
    for source in (files, mixed):
        with pytest.raises(InputError, match=r"has changed since .*b\.txt is new"):
            store.build(source)
