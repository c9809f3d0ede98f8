"""Tokenizers of trained models."""

import json
from unittest.mock import Mock

import numpy as np
import pytest

from ngpt_lab.data import BPE, TextDataModule, TextFiles, TokenizerFolder
from ngpt_lab.data.encoders import ByteEncoder, Encoder
from ngpt_lab.data.tasks.offsets import encoder_of, placed, tokens_of
from ngpt_lab.data.tokenizer_files import write_tokenizer
from ngpt_lab.errors import InputError

TEXTS = ["the city of Paris", "\u00e9t\u00e9 \u4e2d, <end>", " ", ""]


def test_the_folder_of_bytes_gives_bytes_where_they_stand(tmp_path):
    write_tokenizer(ByteEncoder(), tmp_path)
    folder = encoder_of(TokenizerFolder(str(tmp_path)))
    assert (folder.vocab_size, folder.separator) == (256, 0)
    for ours, theirs in zip(placed(folder, TEXTS), placed(ByteEncoder(), TEXTS), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.tolist() == other.tolist()


def test_tokens_with_places_are_those_without(subwords):
    encoder = encoder_of(TokenizerFolder(str(subwords)))
    for text, tokens, place in zip(TEXTS, tokens_of(encoder, TEXTS), placed(encoder, TEXTS), strict=True):
        assert np.array_equal(tokens, place.tokens)
        assert encoder.decode(tokens).decode() == text
        assert (place.starts < place.ends).all()
        assert "".join(text[start:end] for start, end in dict.fromkeys(zip(place.starts, place.ends, strict=True))) == text


def test_a_tokenizer_that_does_not_tell_places_is_refused():
    encoder = Mock(spec=Encoder)
    encoder.name = "words"
    with pytest.raises(InputError, match="the tokenizer words does not tell where its tokens stand"):
        placed(encoder, TEXTS)


def test_text_is_trained_on_in_the_tokens_of_a_folder_too(subwords, tmp_path):
    (tmp_path / "text.txt").write_text("the largest city of the country is Paris. " * 200)
    data = TextDataModule(
        TextFiles(str(tmp_path / "text.txt")), tokenizer=TokenizerFolder(str(subwords)), seq_len=8, processes=1
    )
    data.prepare_data()
    assert data.vocab_size == encoder_of(TokenizerFolder(str(subwords))).vocab_size
    assert data.describe()["tokenizer"] == f"{subwords.parent.name}/tokenizer"


def test_a_folder_that_does_not_say_what_ends_a_text_is_refused(subwords, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((subwords / "tokenizer.json").read_bytes())
    with pytest.raises(InputError, match=r"has no token '<\|endoftext\|>', .* such as '<end>'"):
        encoder_of(TokenizerFolder(str(tmp_path)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))
    assert encoder_of(TokenizerFolder(str(tmp_path))).separator == 0
    with pytest.raises(InputError, match="cannot be read"):
        encoder_of(TokenizerFolder(str(tmp_path / "nowhere")))


def test_a_tokenizer_that_would_be_trained_is_refused():
    with pytest.raises(InputError, match=r"BPE would be trained on the examples: .*--data.tokenizer.path=RUN/tokenizer"):
        encoder_of(BPE(300))
    assert isinstance(encoder_of(None), ByteEncoder)
