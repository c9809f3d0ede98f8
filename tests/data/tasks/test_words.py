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
        ({"tokens": [None, "a", "b", "c"]}, "row 2, column 'tokens': there is no text but 'None'"),
    ],
)
def test_a_bad_row_is_named(row, told, table):
    with pytest.raises(InputError, match=f"train .*{told}"):
        data(table("train", [ROW, ROW | row])).setup("fit")


def test_tags_that_are_one_text_are_refused(table):
    with pytest.raises(InputError, match="row 1, column 'ner_tags': there is no list but 'O O O LOC'"):
        data(table("train", [ROW | {"ner_tags": "O O O LOC"}])).setup("fit")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_bytes_stand_where_their_characters_do(text):
    (found,) = placed(ByteEncoder(), [text])
    assert bytes(found.tokens).decode() == text
    assert [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == [
        character for character in text for _ in character.encode()
    ]
