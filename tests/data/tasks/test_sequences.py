"""Texts with a label each."""

import re

import numpy as np
import pytest
import torch

from ngpt_lab.data import SequenceData, TableFiles, TokenizerFolder
from ngpt_lab.errors import InputError


def data(file, *held_out, **settings):
    return SequenceData(source=TableFiles(file, *held_out), **{"seq_len": 16, "batch_size": 2, **settings})


def texts(batch):
    return [bytes(row[row > 0].tolist()).decode() for row in batch.tokens]


def test_names_of_classes_are_numbered_in_their_order_and_texts_are_padded_to_eights(table):
    rows = [{"text": text, "label": label} for text, label in [("a long text", "good"), ("ok", "bad"), ("\u00e9", "fine")]]
    made = data(table("train", rows), table("validation", rows[::-1]), batch_size=3)
    assert (made.label_names, made.num_labels) == (["bad", "fine", "good"], 3)
    (batch,) = made.val_dataloader()
    assert batch.tokens.shape == batch.mask.shape == (3, 16)
    assert texts(batch) == ["\u00e9", "ok", "a long text"]
    assert batch.mask.sum(1).tolist() == [2, 2, 11]
    assert batch.tokens[batch.mask == 0].unique().tolist() == [made.pad_token_id] == [0]
    assert batch.labels.tolist() == [1, 0, 2]
    assert batch.labels.dtype == batch.tokens.dtype == batch.mask.dtype == torch.int64


def test_the_longer_of_a_pair_is_cut(table):
    rows = [
        {"text": one, "other": two, "label": 1} for one, two in [("a" * 9, "b" * 3), ("a" * 3, "b" * 9), ("a" * 9, "b" * 8)]
    ]
    made = data(table("pairs", rows), table("held", rows), text_pair="other", seq_len=8, batch_size=3)
    (batch,) = made.val_dataloader()
    assert [bytes(row.tolist()) for row in batch.tokens] == [b"aaaa\0bbb", b"aaa\0bbbb", b"aaaa\0bbb"]
    assert made.describe()["too_long"] == {"train": 3, "validation": 3}
    with pytest.raises(InputError, match=r"--data.seq_len 2 has no room for two texts"):
        data(table("short", rows), text_pair="other", seq_len=2)
    (batch,) = data(table("short", rows), table("held", rows), text_pair="other", seq_len=3, batch_size=3).val_dataloader()
    assert [bytes(row.tolist())[:3] for row in batch.tokens] == [b"a\0b"] * 3


def test_several_classes_and_numbers_are_rows_of_floats(table):
    rows = [{"text": "a", "label": ["x", "z"], "score": 0.5}, {"text": "b", "label": [], "score": 2}]
    several = data(table("train", rows), table("held", rows), problem="multi_label_classification")
    (batch,) = several.val_dataloader()
    assert (several.label_names, batch.labels.tolist()) == (["x", "z"], [[1, 1], [0, 0]])
    numbers = data(table("train", rows), table("held", rows), label="score", problem="regression")
    (batch,) = numbers.val_dataloader()
    assert (numbers.label_names, numbers.num_labels, batch.labels.tolist()) == ([], 1, [[0.5], [2]])
    assert batch.labels.dtype == torch.float32


def test_tokens_are_those_of_a_trained_tokenizer_and_padding_is_its_end_token(table, subwords):
    rows = [{"text": "the city of Paris <end>", "label": 0}, {"text": "of", "label": 1}]
    made = data(table("train", rows), table("held", rows), tokenizer=TokenizerFolder(str(subwords)), seq_len=64)
    (batch,) = made.val_dataloader()
    assert (made.vocab_size, made.pad_token_id) == (made.encoder.vocab_size, 0)
    assert int(batch.mask[0].sum()) < 23
    assert made.encoder.decode(batch.tokens[0][batch.mask[0] == 1].numpy()) == b"the city of Paris <end>"
    assert not (batch.tokens[batch.mask == 1] == 0).any()


ROW = {"text": "a", "label": 1}
BAD = {
    "validation .*row 2, column 'label': the label 3 is out of range: there are 2 classes": {"label": 3},
    "row 2, column 'label': the label -1 is out of range: .*a test split often has no labels": {"label": -1},
    "row 2, column 'label': the label None is out of range": {"label": None},
    "row 2, column 'text': there is no text but 'None'": {"text": None},
    "row 2, column 'text': the text is empty": {"text": ""},
    "row 2, column 'text': it is not text: byte 1 of it is zero$": {"text": "a\0"},
}


@pytest.mark.parametrize("told", BAD)
def test_a_bad_row_is_named(told, table):
    with pytest.raises(InputError, match=told):
        data(table("train", [ROW]), table("validation", [ROW, ROW | BAD[told]])).setup("fit")


def test_a_column_that_is_of_no_classes_is_refused(table):
    for value, told in [(0.5, "holds no classes but '0.5'"), (10**6, "number the classes from 0"), ([1], "holds no classes")]:
        file = table("train", [ROW | {"label": value}])
        with pytest.raises(InputError, match=f"train .*column 'label'.*{told}"):
            data(file, file).setup("fit")
    file = table("named", [ROW | {"label": "x"}, ROW | {"label": "z"}])
    other = table("other", [ROW | {"label": "y"}])
    with pytest.raises(InputError, match="row 1, column 'label': the label 'y' is none of 'x', 'z'"):
        data(file, other).setup("fit")
    with pytest.raises(InputError, match=r"column 'label': all labels are 'y': give examples of at least two classes"):
        data(other, file).setup("fit")
    several = table("several", [ROW | {"label": ["x", "z"]}])
    with pytest.raises(InputError, match="there is no list but 'x'"):
        data(several, file, problem="multi_label_classification").setup("fit")


@pytest.mark.parametrize("value", ["x", 1e300, -1e39, float("nan"), True, [1, 2]])
def test_what_is_no_number_of_single_precision_is_refused(value, table):
    file = table("numbers", [ROW, ROW | {"label": value}])
    with pytest.raises(InputError, match=rf"row 2, column 'label': the label {re.escape(repr(value))} is not 1 finite number"):
        data(file, file, problem="regression").setup("fit")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1], "row 1, column 'label': there is no list but '0'"),
        ([[0, 2], [0, 1, 1]], r"row 2, column 'label': the label \[0, 1, 1\] must name each class that applies once"),
        ([[False, True]], r"row 1, column 'label': the label \[False, True\] must name each class"),
    ],
)
def test_what_is_no_list_of_different_classes_is_refused(labels, told, table):
    file = table("several", [ROW | {"label": label} for label in labels])
    with pytest.raises(InputError, match=rf"^train \([^)]*\), {told}"):
        data(file, file, problem="multi_label_classification").setup("fit")


def test_a_test_split_without_labels_does_not_disturb_training(table):
    made = data(table("train", [ROW]), table("validation", [ROW]), table("test", [ROW | {"label": -1}]))
    made.setup("fit")
    with pytest.raises(InputError, match=r"test .*row 1, column 'label': the label -1"):
        made.test_dataloader()
    with pytest.raises(InputError, match=r"has no test split: name one with --data.source.test"):
        data(table("train", [ROW]), table("validation", [ROW])).test_dataloader()


def test_every_tenth_text_is_held_out_where_there_is_no_validation(table, tmp_path):
    rows = [{"text": f"text {number:02}", "label": number % 2} for number in range(25)]
    made = data(table("train", rows), batch_size=23)
    (held,) = made.val_dataloader()
    assert texts(held) == ["text 09", "text 19"]
    assert sorted(texts(made.train_dataloader().batch(0)) + texts(held)) == [row["text"] for row in rows]
    bad = [*rows[:21], rows[0] | {"label": None}]
    with pytest.raises(InputError, match="row 22, column 'label'"):
        data(table("bad", bad)).setup("fit")
    repeated = data(table("repeated", [*rows, *rows]))
    assert repeated.rows("validation").columns["text"] == ["text 09", "text 19"] * 2
    assert len(repeated.rows("train")) == 46
    told = "has 2 rows of 2 different texts in column 'text', and every tenth is held out: give at least 10, or name a split"
    with pytest.raises(InputError, match=rf"{told} with --data.source.validation"):
        data(table("few", rows[:2])).setup("fit")
    (tmp_path / "header.csv").write_text("text,label\n")
    for held_out in ([], [table("validation", rows)]):
        with pytest.raises(InputError, match="is empty: train needs at least one row"):
            data(str(tmp_path / "header.csv"), *held_out).setup("fit")


def test_a_class_may_stand_in_what_is_held_out_alone(table):
    rows = [{"text": f"{number:02}", "label": "rare" if number == 9 else f"{number % 2}"} for number in range(12)]
    for problem in ("single_label_classification", "multi_label_classification"):
        several = problem.startswith("multi")
        file = table(problem, [row | {"label": [row["label"]]} if several else row for row in rows])
        made = data(file, problem=problem)
        made.setup("fit")
        assert made.label_names == ["0", "1", "rare"]


def test_the_fingerprint_is_of_texts_and_labels(table):
    rows = [ROW, ROW | {"label": 0}]
    one = data(table("train", rows), table("validation", rows))
    same = data(table("again", rows), table("same", rows), batch_size=1, seed=3)
    other = data(table("other", rows[::-1]), table("same", rows))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert len({made.fingerprint for made in (one, same, other)}) == 2
    assert np.all([one.describe()["fingerprint"] == one.fingerprint, one.tokens_per_batch == 32])
