import os
import socket

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from ngpt_lab.data.sources.hub import HubDataset
from ngpt_lab.errors import InputError

README = """---
configs:
- config_name: one
  data_files:
  - split: train
    path: data/train-*
  - split: check
    path: data/check-*
- config_name: two
  data_files: two/*
---
"""


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "owner" / "things"
    texts = [None, "", *(f"text {k}" for k in range(10))]
    for name, rows in {
        "data/train-00000-of-00002": texts[:5],
        "data/train-00001-of-00002": texts[5:],
        "data/check-00000-of-00001": ["c0", "c1", "c2"],
        "two/train-00000-of-00001": [" = Title = \n", "", "line\n"],
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table({"id": list(range(len(rows))), "text": pa.array(rows, pa.string())}), folder / f"{name}.parquet"
        )
    (folder / "README.md").write_text(README)
    return folder


def texts(kit, source):
    return {split: [text.decode() for text in kit.joined(pieces)] for split, pieces in kit.splits_of(source).items()}


def numbered(first, last):
    return [f"text {k}" for k in range(first, last)]


@pytest.mark.parametrize("streaming", [True, False])
def test_the_first_rows_are_held_out_where_training_alone_is_named(folder, kit, streaming):
    source = HubDataset(str(folder), "one", held_out=2, streaming=streaming)
    assert texts(kit, source) == {"train": numbered(4, 10), "validation": numbered(0, 2), "test": numbered(2, 4)}
    assert list(source.pieces("train", 3)) == list(source.pieces("train"))[3:]
    assert source.name == "things (one)"


def test_named_splits_are_used_and_validation_is_halved_where_test_is_not_named(folder, kit):
    assert texts(kit, HubDataset(str(folder), "one", validation="check")) == {
        "train": numbered(0, 10),
        "validation": ["c0", "c1"],
        "test": ["c2"],
    }
    assert texts(kit, HubDataset(str(folder), "one", test="check", held_out=3)) == {
        "train": numbered(3, 10),
        "validation": numbered(0, 3),
        "test": ["c0", "c1", "c2"],
    }
    both = HubDataset(str(folder), "one", validation="check", test="train")
    assert texts(kit, both) == {"train": numbered(0, 10), "validation": ["c0", "c1", "c2"], "test": numbered(0, 10)}


def test_rows_that_are_lines_make_one_document_with_its_blank_lines(folder, kit):
    source = HubDataset(str(folder), "two", validation="train", test="train", rows="lines")
    assert kit.joined(source.pieces("train")) == [b" = Title = \n\nline\n"]


def test_a_folder_without_a_card_is_read_by_the_names_of_its_files(tmp_path, kit):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.jsonl").write_bytes(kit.content[".jsonl"](kit.documents))
    (tmp_path / "plain" / "test.jsonl").write_bytes(kit.content[".jsonl"](kit.documents[:1]))
    source = HubDataset(str(tmp_path / "plain"), test="test", held_out=1)
    assert kit.joined(source.pieces("train")) == [document.encode() for document in kit.documents[1:]]


@pytest.mark.parametrize("streaming", [True, False])
def test_what_a_dataset_does_not_have_is_refused_with_what_it_has(folder, streaming):
    (folder.parent / "broken").mkdir()
    whole = (folder / "two" / "train-00000-of-00001.parquet").read_bytes()
    (folder.parent / "broken" / "train.parquet").write_bytes(whole[:-10])
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(folder.parent / "saved"))
    for path, arguments, complaint in [
        (folder, {"name": "one", "train": "nope"}, r"things \(one\) cannot be read: .*\['train', 'check'\]"),
        (folder, {"name": "three"}, r"things \(three\) cannot be read: .*three.* not found.*\['one', 'two'\]"),
        (folder, {}, r"things cannot be read: Config name is missing.*\['one', 'two'\]$"),
        (folder, {"name": "one", "column": "content"}, "split 'train' has no column 'content': there is 'id', 'text'"),
        (folder, {"name": "one", "column": "id"}, "split 'train' has no text in 'id' but int64"),
        (folder, {"name": "one", "held_out": 5}, "too few rows of text in split 'train' to take train from row 10 on"),
        (folder.parent / "broken", {}, "the dataset broken cannot be read: .*Parquet magic bytes"),
        (folder.parent / "saved", {}, "the dataset saved cannot be read: .*save_to_disk"),
    ]:
        with pytest.raises(InputError, match=complaint) as refused:
            list(HubDataset(str(path), streaming=streaming, **arguments).pieces("train"))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "path", ["", "./nope", "/no/such/folder", "a/b/c", "../../no/such", "owner/", "name with spaces", "hf://x"]
)
def test_a_name_that_no_dataset_can_have_is_refused_before_anything_is_asked(path):
    with pytest.raises(InputError, match="is neither a folder nor the name of a dataset"):
        HubDataset(path)


def test_a_hub_that_cannot_be_reached_is_refused_when_read_and_counts_as_unchanged(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'owner/things' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    source = HubDataset("owner/things")
    for ask in (source.state, lambda: list(source.pieces("train"))):
        with pytest.raises(InputError, match="the dataset owner/things cannot be read: Couldn't reach"):
            ask()
    assert source.changed({"revision": "abc"}) is None


def test_another_revision_is_a_change(monkeypatch):
    class Info:
        sha = "abc"

    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: Info)
    source = HubDataset("owner/things")
    assert source.changed(source.state()) is None
    assert source.changed({"revision": "before"}) == "owner/things was at revision before and is at abc"


def test_a_local_dataset_is_known_by_its_files(folder):
    source = HubDataset(str(folder), "one")
    state = source.state()
    os.utime(folder / "README.md", ns=(1, 1))
    assert source.changed(state) is None
    (folder / "README.md").write_text("other")
    assert source.changed(state) == f"{folder / 'README.md'} has changed"


ELSEWHERE = ["/etc/pass*", "../private/*", "data/../../private/*", "http://host/x.parquet", "file:/etc/passwd", "~/x", "C:/x"]


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_that_leads_out_of_its_folder_is_refused_before_anything_is_read(folder, monkeypatch, place, card):
    (folder / "README.md").unlink()
    monkeypatch.setattr(datasets, "load_dataset", None)
    for files in (f"'{place}'", f"{{train: [data/*, '{place}']}}", f"[{{split: train, path: '{place}'}}]"):
        content = f"configs:\n- config_name: one\n  data_files: {files}\n"
        (folder / card).write_text(f"---\n{content}---\n" if card == "README.md" else content)
        with pytest.raises(InputError, match=rf"{card} names '.*', which does not lie in its folder"):
            list(HubDataset(str(folder), "one").pieces("train"))


def test_a_zero_byte_is_replaced_when_asked(tmp_path, kit):
    (tmp_path / "zero").mkdir()
    pq.write_table(pa.table({"text": ["a", "b\0c"]}), tmp_path / "zero" / "train.parquet")
    for errors in ("refuse", "replace"):
        source = HubDataset(str(tmp_path / "zero"), validation="train", test="train", errors=errors)
        if errors == "replace":
            assert kit.joined(source.pieces("train")) == [b"a", "b\ufffdc".encode()]
        else:
            with pytest.raises(InputError, match=r"byte 1 of it is zero \(errors: replace"):
                list(source.pieces("train"))


def test_all_splits_are_read_at_the_commit_that_is_recorded(folder, monkeypatch):
    class Info:
        def __init__(self, sha):
            self.sha = sha

    commits, read, load = iter("abc"), [], datasets.load_dataset
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: Info(next(commits)))

    def here(path, *rest, revision, **named):
        read.append(revision)
        return load(str(folder), *rest, **named)

    monkeypatch.setattr(datasets, "load_dataset", here)
    source = HubDataset("owner/things", "one", held_out=2)
    recorded = source.state()
    for split in ("test", "validation", "train"):
        list(source.pieces(split))
    assert (recorded, read) == ({"revision": "a"}, ["a"] * 3)
    assert source.changed(recorded) is None
    assert "is at b" in HubDataset("owner/things", "one").changed(recorded)


def test_without_the_hub_what_was_downloaded_is_read(folder, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    read, load = [], datasets.load_dataset
    monkeypatch.setattr(HfApi, "dataset_info", unreachable)

    def here(path, *rest, revision, **named):
        read.append(revision)
        return load(str(folder), *rest, **named)

    monkeypatch.setattr(datasets, "load_dataset", here)
    assert list(HubDataset("owner/things", "one", revision="v1", held_out=2).pieces("test"))
    assert read == ["v1"]
