import json

import datasets
import pytest

from ngpt_lab.data.sources.saved import SavedDataset
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.errors import InputError


@pytest.fixture
def dataset(kit):
    return datasets.Dataset.from_dict({"id": list(range(len(kit.documents))), "text": kit.documents})


def test_a_saved_dataset_gives_what_a_file_of_its_documents_gives(tmp_path, kit, dataset):
    dataset.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    (tmp_path / "a.jsonl").write_bytes(kit.content[".jsonl"](kit.documents))
    source = SavedDataset(str(tmp_path / "saved"))
    assert kit.splits_of(source) == kit.splits_of(TextFiles(str(tmp_path / "a.jsonl")))
    assert source.name == "saved"
    assert len(source.state()["files"]) == 3
    assert source.changed(source.state()) is None


def test_a_filtered_dataset_gives_the_rows_it_kept(tmp_path, kit, dataset):
    dataset.select([4, 0, 2]).save_to_disk(str(tmp_path / "saved"))
    found = b"\0".join(
        kit.joined([piece for pieces in kit.splits_of(SavedDataset(str(tmp_path / "saved"))).values() for piece in pieces])
    )
    assert found.replace(b"\0", b"") == "".join(kit.documents[k] for k in (4, 0, 2)).encode()


def test_the_splits_of_a_dataset_dict_are_used_and_those_it_lacks_cut_from_them(tmp_path, kit):
    parts = {name: datasets.Dataset.from_dict({"text": [name * 10]}) for name in ("train", "validation", "test", "extra")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "all"))
    assert {split: kit.joined(pieces) for split, pieces in kit.splits_of(SavedDataset(str(tmp_path / "all"))).items()} == {
        name: [name.encode() * 10] for name in ("train", "validation", "test")
    }
    del parts["test"]
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    halves = [kit.joined(SavedDataset(str(tmp_path / "two")).pieces(split))[0] for split in ("validation", "test")]
    assert b"".join(halves) == b"validation" * 10
    assert abs(len(halves[0]) - len(halves[1])) < 2


def test_what_is_no_whole_saved_dataset_is_refused_by_name(tmp_path, dataset):
    datasets.DatasetDict({"validation": dataset.select([0])}).save_to_disk(str(tmp_path / "splits"))
    for name in ("column", "cut", "escaping", "lost", "state", "keys"):
        dataset.select([0, 1]).save_to_disk(str(tmp_path / name))
    arrow = next((tmp_path / "cut").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:-20])
    next((tmp_path / "lost").glob("*.arrow")).unlink()
    (tmp_path / "escaping" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../cut/a.arrow"}]}))
    (tmp_path / "state" / "state.json").write_text("{")
    (tmp_path / "keys" / "state.json").write_text('{"_data_files": 3}')
    for name, arguments, complaint in [
        ("missing", {}, "missing is not a dataset made by save_to_disk"),
        (".", {}, "is not a dataset made by save_to_disk"),
        ("splits", {}, "has no split 'train': there is 'validation'"),
        ("column", {"column": "content"}, "has no column 'content': there is 'id', 'text'"),
        ("column", {"column": "id"}, "has no text in 'id' but int64"),
        ("cut", {}, "arrow is not a whole arrow file"),
        ("lost", {}, "arrow cannot be read: No such file"),
        ("escaping", {}, "names files that are not .arrow files of its folder"),
        ("state", {}, "state.json is not as save_to_disk writes it"),
        ("keys", {}, "state.json is not as save_to_disk writes it"),
    ]:
        with pytest.raises(InputError, match=complaint):
            list(SavedDataset(str(tmp_path / name), **arguments).pieces("train"))


def test_a_zero_byte_is_replaced_when_asked(tmp_path, kit):
    saved = str(tmp_path / "saved")
    parts = {name: datasets.Dataset.from_dict({"text": ["a", "b\0c"]}) for name in ("train", "validation", "test")}
    datasets.DatasetDict(parts).save_to_disk(saved)
    with pytest.raises(InputError, match=r"row 2, is not text: byte 1 of it is zero \(errors: replace"):
        list(SavedDataset(saved).pieces("train"))
    assert kit.joined(SavedDataset(saved, errors="replace").pieces("train")) == [b"a", "b\ufffdc".encode()]
