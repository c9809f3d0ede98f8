"""Pieces of text put together are the whole text, and no piece ends inside a character."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from ngpt_lab.data.tokenizer_files import TextTokenizer, byte_tokenizer
from ngpt_lab.generation.pieces import REPLACEMENT, Pieces

BYTES = TextTokenizer(json.dumps(byte_tokenizer()).encode(), "\0")


class WithFallback:
    """A tokenizer as sentencepiece makes them: a blank before each word, and bytes for what it has no token for."""

    def __init__(self) -> None:
        vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581Hello": 256, "\u2581world": 257, ",": 258}
        self.tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        self.tokenizer.decoder = decoders.Sequence(steps)

    def decode(self, ids):
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)


class Cut:
    """A tokenizer whose tokens are the pieces that bytes were cut into: a token can end one character and begin another."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def decode(self, ids):
        return b"".join(self.pieces[token] for token in ids).decode(errors="replace")


def told(tokenizer, ids, before=()):
    pieces = Pieces(tokenizer, before)
    return [*(pieces.push(token) for token in ids), pieces.rest()]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_the_pieces_of_a_text_are_the_text_and_hold_whole_characters(text, before):
    pieces = told(BYTES, list(text.encode()), list(before.encode()))
    assert "".join(pieces) == text
    assert REPLACEMENT in text or not any(REPLACEMENT in piece for piece in pieces)
    assert pieces[-1] == ""


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters=REPLACEMENT), min_size=1, max_size=60), st.data())
def test_wherever_tokens_end_each_character_comes_with_its_last_byte(text, data):
    content, cuts = text.encode(), [0]
    while cuts[-1] < len(content):
        cuts.append(min(len(content), cuts[-1] + data.draw(st.integers(1, 7))))
    tokenizer = Cut([content[start:end] for start, end in pairwise(cuts)])
    known = data.draw(st.integers(0, len(cuts) - 1).filter(lambda at: whole(content[: cuts[at]])))
    pieces = Pieces(tokenizer, range(known))
    so_far = content[: cuts[known]].decode()
    for token, end in enumerate(cuts[known + 1 :], start=known):
        so_far += pieces.push(token)
        assert so_far == content[:end].decode(errors="ignore")
    assert pieces.rest() == ""


def whole(content):
    return not content.decode(errors="replace").endswith(REPLACEMENT)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=3) | st.text(max_size=3).map(str.encode), max_size=20).map(b"".join))
def test_bytes_that_are_no_text_are_told_as_a_decoder_of_all_of_them_tells(content):
    assert "".join(told(BYTES, list(content), list(b"before"))) == content.decode(errors="replace")


def test_a_character_comes_with_its_last_token():
    assert told(BYTES, list("a\u4e2d!".encode())) == ["a", "", "", "\u4e2d", "!", ""]
    assert told(BYTES, list("\U0001f600".encode())) == ["", "", "", "\U0001f600", ""]


def test_what_was_cut_inside_a_character_comes_at_the_end():
    assert told(BYTES, list("a\u4e2d".encode())[:-1]) == ["a", "", "", REPLACEMENT]


def test_what_is_no_text_is_not_waited_for_longer_than_a_character_takes():
    pieces = told(BYTES, [0x80] * 9)
    assert pieces == ["", "", "", *[REPLACEMENT] * 6, REPLACEMENT * 3]


@pytest.mark.parametrize("before", [(), (256,), (256, 258)])
def test_blanks_that_only_a_text_s_beginning_lacks_are_told(before):
    tokenizer = WithFallback()
    ids = [257, 258, 256, 257]
    assert "".join(told(tokenizer, ids, before)) == tokenizer.decode([*before, *ids])[len(tokenizer.decode(before)) :]


def test_characters_of_byte_tokens_side_by_side_are_whole():
    assert told(WithFallback(), [257, *"\u4e2d\u4e2d".encode(), 258], (256,)) == [
        " world",
        "",
        "",
        "\u4e2d",
        "",
        "",
        "\u4e2d",
        ",",
        "",
    ]


def test_a_long_run_of_byte_tokens_is_told_character_by_character():
    text = "\u4e2d\u00e9\U0001f600\u6587" * 20
    for before in ((256,), (256, *"\u4e2d\u6587".encode() * 5)):
        pieces = told(WithFallback(), [*text.encode(), 258, 257], before)
        assert [piece for piece in pieces if piece] == [*text, ",", " world"]
