import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.data import store
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
        ((*FIRST, "sha256"), "0" * 64),
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
    assert len(str(refused.value)) < 400


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
