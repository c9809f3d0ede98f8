"""Words with tags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.data import TableFiles, TokenData, TokenizerFolder
from ngpt_lab.data.encoders import ByteEncoder
from ngpt_lab.data.tasks.offsets import placed
from ngpt_lab.errors import InputError

ROW = {"tokens": ["the", "city", "of", "Paris"], "ner_tags": ["O", "O", "O", "LOC"]}


def data(file, **settings):
    return TokenData(source=TableFiles(file, file), **{"seq_len": 32, "batch_size": 2, **settings})


def words_at(made, batch, tagged):
    """What stands before (or from) each labelled token."""
    (tokens,), (labels,) = batch.tokens.tolist(), batch.labels.tolist()
    text = [made.encoder.decode(np.array([token])).decode() for token in tokens]
    return [
        ("".join(text[: at + 1] if tagged == "last" else text[at:]).strip(), label)
        for at, label in enumerate(labels)
        if label >= 0
    ]


@pytest.mark.parametrize("kind", ["bytes", "subwords"])
def test_one_token_of_each_word_has_its_tag(kind, table, subwords):
    tokenizer = TokenizerFolder(str(subwords)) if kind == "subwords" else None
    file = table("train", [ROW])
    for tagged, expected in {
        "first": ["the city of Paris", "city of Paris", "of Paris", "Paris"],
        "last": ["the", "the city", "the city of", "the city of Paris"],
    }.items():
        made = data(file, tokenizer=tokenizer, tagged=tagged)
        (batch,) = made.val_dataloader()
        assert made.label_names == ["LOC", "O"]
        found = words_at(made, batch, tagged)
        assert [label for _, label in found] == [1, 1, 1, 0]
        assert [text.replace("<end>", "").rstrip("\0") for text, _ in found] == expected
        assert (batch.labels[batch.mask == 0] == -100).all()


@pytest.mark.parametrize("tagged", ["first", "last"])
def test_words_without_tokens_have_no_tag_and_leave_it_to_no_other(tagged, table, dropping):
    row = {"tokens": ["\u200d", "the", "~", "city", "~~"], "ner_tags": ["A", "B", "C", "D", "E"]}
    made = data(table("train", [row]), tokenizer=TokenizerFolder(str(dropping)), tagged=tagged)
    (batch,) = made.val_dataloader()
    found = [(text.replace("<end>", "").split(), label) for text, label in words_at(made, batch, tagged)]
    assert found == [
        (["the"] if tagged == "last" else ["the", "city"], 1),
        (["the", "city"] if tagged == "last" else ["city"], 3),
    ]
    with pytest.raises(InputError, match=r"row 2, column 'tokens': the tokenizer has no token for any of the words"):
        data(table("none", [row, {"tokens": ["~"], "ner_tags": ["A"]}]), tokenizer=TokenizerFolder(str(dropping))).setup("fit")


def test_words_that_are_cut_off_have_no_tag(table):
    made = data(table("train", [ROW]), seq_len=6)
    (batch,) = made.val_dataloader()
    assert batch.labels.tolist() == [[1, -100, -100, -100, 1, -100, -100, -100]]
    assert made.describe()["too_long"]["train"] == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"ner_tags": ["O"]}, "row 2, column 'ner_tags': there are 1 tags for 4 words of column 'tokens'"),
        ({"tokens": [], "ner_tags": []}, "row 2, column 'tokens': there is no word"),
        ({"tokens": ["", "a", "b", "c"]}, "row 2, column 'tokens': a word is empty"),
        ({"tokens": ["a", " \t", "b", "c"]}, "row 2, column 'tokens': a word is empty, or whitespace alone"),
        ({"tokens": [None, "a", "b", "c"]}, "row 2, column 'tokens': there is no text but 'None'"),
    ],
)
def test_a_bad_row_is_named(row, told, table):
    with pytest.raises(InputError, match=f"train .*{told}"):
        data(table("train", [ROW, ROW | row])).setup("fit")


def test_tags_that_are_one_text_or_always_the_same_are_refused(table):
    for tags, told in [
        ("O O O LOC", "row 1, column 'ner_tags': there is no list but 'O O O LOC'"),
        (["O"] * 4, "column 'ner_tags': all labels are 'O': give examples of at least two classes"),
    ]:
        with pytest.raises(InputError, match=rf"^train \([^)]*\),? {told}"):
            data(table("train", [ROW | {"ner_tags": tags}])).setup("fit")


def test_tags_of_what_is_held_out_are_known_and_equal_texts_are_held_out_together(table):
    rows = [{"tokens": ["word", str(number % 10)], "ner_tags": ["O", "B" if number == 9 else "A"]} for number in range(20)]
    made = TokenData(source=TableFiles(table("train", rows)))
    assert made.label_names == ["A", "B", "O"]
    assert made.rows("validation").columns["tokens"] == [["word", "9"]] * 2
    assert len(made.rows("train")) == 18


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_bytes_stand_where_their_characters_do(text):
    (found,) = placed(ByteEncoder(), [text])
    assert bytes(found.tokens).decode() == text
    assert [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == [
        character for character in text for _ in character.encode()
    ]
