import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from ngpt_lab.data.encoders import read_tokenizer
from ngpt_lab.data.sources.source import Piece
from ngpt_lab.data.tokenizers import BPE, Bytes, HubTokenizer, TokenizerFile
from ngpt_lab.errors import InputError

WORDS = "the cat and the hat sat on the mat, and the rat ran after the cat. "


class Text:
    def __init__(self, *texts):
        self.texts = texts

    def pieces(self, split, skip=0):
        assert split == "train"
        return iter([Piece(text.encode(), True) for text in self.texts])


@pytest.fixture(scope="module")
def bpe():
    return BPE(300).encoder(Text(WORDS * 50, WORDS.upper() * 50))


@pytest.fixture
def words(tmp_path):
    """Makes a tokenizer.json of whole words."""

    def make(count=10, **changes):
        vocabulary = {"<unk>": 0, **{f"w{n}": n for n in range(1, count)}}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.add_special_tokens(["<s>", "</s>"])
        path = tmp_path / "words.json"
        path.write_text(json.dumps({**json.loads(tokenizer.to_str()), **changes}))
        return str(path)

    return make


@given(text=st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_decoding_what_bpe_encodes_gives_the_text_back(bpe, text):
    tokens = bpe.encode([text.encode()])[0]
    assert bpe.decode(tokens) == text.encode()
    assert bpe.separator not in tokens


def test_bpe_has_the_size_that_was_asked_for_and_makes_words_shorter(bpe):
    assert (bpe.vocab_size, bpe.separator, bpe.dtype) == (300, 0, "uint16")
    assert len(bpe.encode([WORDS.encode()])[0]) < len(WORDS) / 2


def test_bpe_is_the_same_whenever_it_is_trained_with_any_number_of_threads(bpe, monkeypatch):
    for parallel in ("false", "true"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        again = BPE(300).encoder(Text(WORDS * 50, WORDS.upper() * 50))
        assert again.fingerprint == bpe.fingerprint
    assert BPE(300).encoder(Text(WORDS)).fingerprint != bpe.fingerprint


def test_bpe_is_trained_on_no_more_than_its_sample():
    all_of_it, beginning = (BPE(300, 60).encoder(Text(*texts)) for texts in [(WORDS[:30], WORDS[30:], WORDS), (WORDS[:60],)])
    assert Tokenizer.from_str(all_of_it.content.decode()).get_vocab().keys() == (
        Tokenizer.from_str(beginning.content.decode()).get_vocab().keys()
    )


def test_text_that_spells_the_separator_is_text(bpe, words):
    text = b"a <|endoftext|> b"
    assert bpe.separator not in bpe.encode([text])[0]
    assert bpe.decode(bpe.encode([text])[0]) == text
    encoder = TokenizerFile(words(), "</s>").encoder(None)
    assert list(encoder.encode([b"w1 </s> w2 <s>"])[0]) == [1, 0, 2, 0]
    assert encoder.separator == 11


def test_a_separator_that_the_file_does_not_call_special_is_text_too(words):
    added = [{**json.loads(Path(words()).read_text())["added_tokens"][1], "special": False}]
    encoder = TokenizerFile(words(added_tokens=added), "</s>").encoder(None)
    assert encoder.separator not in encoder.encode([b"w1</s>w2 </s> w3"])[0]


def test_templates_truncation_and_padding_of_a_file_do_not_apply(words):
    path = words()
    tokenizer = Tokenizer.from_file(path)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 10), ("</s>", 11)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.add_tokens([AddedToken("w3")])
    tokenizer.save(path)
    encoder = TokenizerFile(path, "</s>").encoder(None)
    assert [list(tokens) for tokens in encoder.encode([b"w1 w2 w3 w4 w5", b"w6"])] == [[1, 2, 3, 4, 5], [6]]


def test_ids_above_65535_take_four_bytes(words):
    encoder = TokenizerFile(words(70_000), "</s>").encoder(None)
    assert (encoder.dtype, encoder.vocab_size) == ("uint32", 70_002)
    assert list(encoder.encode([b"w65536 w69999"])[0]) == [65536, 69999]


def test_an_encoder_is_the_same_in_another_process_and_from_its_folder(bpe, tmp_path):
    bpe.save(tmp_path)
    for other in (pickle.loads(pickle.dumps(bpe)), BPE(300).restore(tmp_path)):
        assert (other.fingerprint, other.name, other.vocab_size) == (bpe.fingerprint, "BPE 300", 300)
        assert np.array_equal(other.encode([b"a <|endoftext|> b"])[0], bpe.encode([b"a <|endoftext|> b"])[0])


def test_a_cut_inside_a_character_loses_that_character_alone(bpe):
    assert bpe.decode(bpe.encode(["a\u00e9b".encode()[:2]])[0]) == "a\ufffd".encode()
    bytes_ = Bytes().encoder(None)
    assert bytes_.decode(bytes_.encode(["\u00e9".encode()[:1]])[0]) == b"\xc3"


def test_the_spec_of_a_file_is_its_content(words, tmp_path):
    path = words()
    before = TokenizerFile(path).spec()
    (tmp_path / "copy.json").write_bytes(Path(path).read_bytes())
    assert TokenizerFile(str(tmp_path / "copy.json")).spec() == before
    assert TokenizerFile(words(11)).spec() != before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a tokenizer"),
        (b"not json", "is not a tokenizer"),
        (b"[]", "it holds no object"),
        (b"[" * 10**6, "is not a tokenizer"),
        (b"\xff\xfe", "is not a tokenizer"),
        (b'{"added_tokens": 7}', "is not a tokenizer"),
        (b'{"added_tokens": [{}]}', "no 'content'"),
        (b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "is not a tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}', "is not a tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}', "is not a tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"<|endoftext|>": 4294967295}, "merges": []}}', "ids up to 4294967295"),
        (b'{"model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 4}, "merges": []}}', "2 tokens ids up to 4"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', r"has no token '<\|endoftext\|>'.*with separator"),
    ],
)
def test_a_hostile_tokenizer_file_is_one_sentence(tmp_path, content, complaint):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"tokenizer\.json.*{complaint}") as refused:
        TokenizerFile(str(path)).encoder(None)
    assert "\n" not in str(refused.value)


def test_an_absurdly_large_tokenizer_file_is_not_read_and_a_missing_one_is_told(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(InputError, match=r"tokenizer\.json has 268435457 bytes"):
        read_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file"):
        TokenizerFile(str(tmp_path / "none.json")).spec()


def test_an_unknown_separator_is_refused_with_what_the_file_offers(words):
    with pytest.raises(InputError, match=r"has no token '<\|endoftext\|>'.*such as '<s>', '</s>'"):
        TokenizerFile(words()).encoder(None)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(InputError, match=r"tokenizer of a/b cannot be had from the Hugging Face hub \(no route\)"):
        HubTokenizer("a/b").encoder(None)


def test_a_hub_tokenizer_is_read_as_a_file_is(monkeypatch, words):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **kwargs: asked.append((args, kwargs)) or words())
    assert HubTokenizer("a/b", "</s>", "v1").encoder(None).separator == 11
    assert asked == [(("a/b", "tokenizer.json"), {"revision": "v1"})]


@pytest.mark.parametrize("sizes", [(256,), (2**30,), (300, 0)])
def test_impossible_sizes_of_bpe_are_refused(sizes):
    with pytest.raises(InputError, match="of BPE is"):
        BPE(*sizes)
