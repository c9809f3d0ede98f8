"""Tokenizers as folders that other tools read."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from ngpt_lab.data.encoders import ByteEncoder, Encoder, FileEncoder
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import build
from ngpt_lab.data.tokenizer_files import (
    byte_alphabet,
    read_tokenizer_folder,
    special_token,
    write_store_tokenizer,
    write_tokenizer,
)
from ngpt_lab.data.tokenizers import BPE, TokenizerFile
from ngpt_lab.errors import InputError
from ngpt_lab.training.run_record import keep_tokenizer

TEXT = "the zero \0 and \u0100, <|endoftext|> and \u00ff, \u4e2d\U0001f600\r\n  indented\n" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer folder of bytes."""
    folder = tmp_path_factory.mktemp("bytes")
    write_tokenizer(ByteEncoder(), folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TextFiles:
    file = tmp_path_factory.mktemp("text") / "some.txt"
    file.write_text("the quick brown fox jumps over the lazy dog; " * 300)
    return TextFiles([str(file)])


@given(st.text())
@example("\0")
@example("\u0100\0\u0100")
@example(TEXT)
@settings(deadline=None)
def test_the_ids_of_bytes_are_the_bytes_of_any_text_and_give_it_back(folder: Path, text: str):
    ours, theirs = read_tokenizer_folder(folder), AutoTokenizer.from_pretrained(folder)
    ids = list(text.encode())
    assert ours.encode(text) == theirs(text)["input_ids"] == ids
    assert ours.decode(ids) == theirs.decode(ids) == text


def test_the_separator_of_bytes_is_a_special_token_that_shows_as_nothing(folder: Path):
    ours, theirs = read_tokenizer_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert (ours.eos, ours.vocab_size) == (ByteEncoder.separator, ByteEncoder.vocab_size)
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (0, 0, 256)
    assert theirs.decode([104, 105, 0], skip_special_tokens=True) == "hi"
    assert theirs(["a", "abc"], padding=True)["input_ids"] == [[0, 0, 97], [97, 98, 99]]
    assert theirs("one", "two")["input_ids"] == list(b"one\0two")
    assert sorted(byte_alphabet()) == sorted(ByteLevel.alphabet())


def test_a_trained_tokenizer_goes_out_with_the_ids_that_training_saw(source: TextFiles, tmp_path: Path):
    store = build(source, BPE(300), tmp_path / "store")
    assert write_store_tokenizer(store, tmp_path / "one")
    encoder = BPE(300).restore(store)
    write_tokenizer(encoder, tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    ours, theirs = read_tokenizer_folder(tmp_path / "one"), AutoTokenizer.from_pretrained(tmp_path / "one")
    plain = "the lazy \u00e9 fox\n"
    assert ours.encode(plain) == theirs(plain)["input_ids"] == encoder.encode([plain.encode()])[0].tolist()
    assert ours.decode(ours.encode(plain)) == plain
    assert ours.eos == theirs.eos_token_id == encoder.separator
    assert ours.vocab_size == encoder.vocab_size


def test_what_had_no_part_in_training_is_left_out_of_a_tokenizer(source: TextFiles, tmp_path: Path):
    described = json.loads(BPE(260).encoder(source).content)
    described["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    described["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    described["added_tokens"][0]["special"] = False
    file = tmp_path / "with_a_template.json"
    file.write_text(json.dumps(described))
    encoder = TokenizerFile(str(file)).encoder(source)
    write_tokenizer(encoder, tmp_path / "folder")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "folder")
    ids = encoder.encode([b"the fox"])[0].tolist()
    assert theirs("the fox")["input_ids"] == ids
    assert theirs("the fox", "the fox")["input_ids"] == [*ids, 0, *ids]
    assert theirs.decode([*theirs("the fox")["input_ids"], 0], skip_special_tokens=True) == "the fox"


class Unknown(Encoder):
    name, vocab_size, separator, fingerprint = "unknown", 1, 0, ""

    def encode(self, texts):
        return [np.zeros(len(text), np.uint8) for text in texts]

    def decode(self, tokens):
        return b""

    def save(self, folder):
        pass


def test_what_is_no_tokenizer_is_refused_in_one_sentence(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        read_tokenizer_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer of the tokenizers library"):
        read_tokenizer_folder(tmp_path)
    assert not write_store_tokenizer(tmp_path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_encoder_of_a_user_s_own_is_written_as_nothing_and_stops_no_training(tmp_path: Path):
    assert not write_tokenizer(Unknown(), tmp_path / "made")
    keep_tokenizer(SimpleNamespace(encoder=Unknown()), tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert write_tokenizer(ByteEncoder(), tmp_path / "made")


def test_a_template_adds_what_it_adds_for_others(folder: Path, tmp_path: Path):
    described = json.loads((folder / "tokenizer.json").read_text())
    described["post_processor"]["single"].insert(0, {"SpecialToken": {"id": "\0", "type_id": 0}})
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    shutil.copy(folder / "tokenizer_config.json", tmp_path)
    for made, begin in ((tmp_path, [0]), (folder, [])):
        ours = read_tokenizer_folder(made)
        assert ours.encode_with_template("ab") == AutoTokenizer.from_pretrained(made)("ab")["input_ids"] == [*begin, 97, 98]
        assert ours.encode("ab") == [97, 98]


def test_the_token_that_ends_a_text_is_read_in_each_form_that_others_write(folder: Path, tmp_path: Path):
    content = (folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content)
    assert read_tokenizer_folder(tmp_path).eos is None
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "a"}}))
    assert read_tokenizer_folder(tmp_path).eos == 97
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "b"}))
    assert read_tokenizer_folder(tmp_path).eos == 98
    assert special_token(tmp_path, "bos_token") is None


def test_a_separator_outside_of_the_added_tokens_is_found(source: TextFiles, tmp_path: Path):
    described = json.loads(BPE(257).encoder(source).content)
    described["added_tokens"] = []
    encoder = FileEncoder(json.dumps(described).encode(), "a")
    write_tokenizer(encoder, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == read_tokenizer_folder(tmp_path).eos == encoder.separator
