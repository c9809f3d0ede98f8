"""Where labelled examples come from."""

import datasets
import pytest

from ngpt_lab.data import HubTable, SavedTable, TableFiles
from ngpt_lab.errors import InputError

NAMES = ["no", "yes"]
ROWS = {"text": ["NA", "b, c", "d"], "label": [1, 0, 1]}


@pytest.fixture
def dataset():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict(ROWS, features=features)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "saved", "hub"])
def test_every_form_of_a_table_gives_the_same_rows(kind, dataset, tmp_path):
    match kind:
        case "saved":
            datasets.DatasetDict({"train": dataset}).save_to_disk(str(tmp_path / "saved"))
            source = SavedTable(str(tmp_path / "saved"))
        case "hub":
            (tmp_path / "hub").mkdir()
            dataset.to_parquet(str(tmp_path / "hub" / "train-00000-of-00001.parquet"))
            source = HubTable(str(tmp_path / "hub"))
        case _:
            file = tmp_path / f"rows.{kind}"
            dataset.to_pandas().to_csv(file, index=False) if kind == "csv" else None
            {"jsonl": dataset.to_json, "parquet": dataset.to_parquet}.get(kind, lambda _: None)(str(file))
            source = TableFiles(str(file))
    source.prepare()
    rows = source.rows("train", ["label", "text"])
    assert rows.columns == ROWS
    assert rows.classes == ({"label": tuple(NAMES)} if kind in ("saved", "hub", "parquet") else {})
    assert source.rows("test", ["text"]) is None
    assert source.place("validation") is None
    with pytest.raises(InputError, match=r"train.* has no column 'body': there is 'text', 'label'"):
        source.rows("train", ["body"])


def test_what_cannot_be_read_is_told_in_one_sentence(tmp_path, table):
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text" 3}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "note.txt").write_text("a")
    for files, told in [
        ("none.jsonl", "no file matches .*none.jsonl"),
        ("broken.jsonl", r"train \(.*broken.jsonl\) cannot be read: .*JSON"),
        ("empty.jsonl", "empty.jsonl is empty"),
        ("note.txt", "give files of one kind, .jsonl"),
    ]:
        with pytest.raises(InputError, match=told):
            TableFiles(str(tmp_path / files)).rows("train", ["text"])
    with pytest.raises(InputError, match="is not a dataset made by save_to_disk"):
        SavedTable(str(tmp_path / "nothing")).rows("train", ["text"])
    with pytest.raises(InputError, match="neither a folder nor the name of a dataset"):
        HubTable("a/b/c")


def test_a_name_of_the_hub_is_asked_for_with_its_configuration_and_revision(monkeypatch, dataset):
    asked = []

    def load(*what, **how):
        asked.append((what, how))
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = HubTable("nyu-mll/glue", "mrpc", validation="validation", revision="abc")
    source.prepare()
    assert source.rows("validation", ["label"]).columns == {"label": ROWS["label"]}
    assert asked[-1] == (("nyu-mll/glue", "mrpc"), {"split": "validation", "revision": "abc", "streaming": False})
    assert [how["split"] for _, how in asked] == ["train", "validation"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no network")))
    with pytest.raises(InputError, match=r"nyu-mll/glue \(mrpc\) cannot be read: no network"):
        source.prepare()
