"""The tokenizer of a run, kept or made again."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ngpt_lab.data.encoders import ByteEncoder
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import build
from ngpt_lab.data.tokenizers import BPE
from ngpt_lab.errors import InputError
from ngpt_lab.interop.run_tokenizer import tokenizer_of
from ngpt_lab.training.run_folders import foreign
from ngpt_lab.training.run_record import keep_tokenizer

TEXT = "the norm of a vector on the sphere is one\n"


def run_of(folder: Path, source: dict | str | None, tokenizer: dict | str | None = None, **more: object) -> Path:
    """A run's folder that has nothing but a config."""
    folder.mkdir()
    data = {"class_path": "ngpt_lab.data.TextDataModule", "init_args": {"source": source, "tokenizer": tokenizer, **more}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("store")
    (at / "some.txt").write_text(TEXT * 3000)
    return build(TextFiles([str(at / "some.txt")]), BPE(300), at / "tokens")


def test_bytes_need_no_text(tmp_path: Path):
    for number, tokenizer in enumerate([None, {"class_path": "ngpt_lab.data.Bytes"}, "ngpt_lab.data.tokenizers.Bytes"]):
        found = tokenizer_of(run_of(tmp_path / str(number), {"class_path": "ngpt_lab.data.StandardLibrary"}, tokenizer))
        assert found is not None
        assert found.encode("one") == list(b"one")
        assert found.eos == 0


def test_a_trained_tokenizer_comes_from_the_tokens_of_the_run(store: Path, tmp_path: Path):
    text = {"class_path": "ngpt_lab.data.TextFiles", "init_args": {"files": [str(store.parent / "some.txt")]}}
    bpe = {"class_path": "ngpt_lab.data.BPE", "init_args": {"vocab_size": 300}}
    tokens = {"class_path": "ngpt_lab.data.TokenStore", "init_args": {"folder": str(store)}}
    runs = [run_of(tmp_path / "text", text, bpe, store=str(store)), run_of(tmp_path / "tokens", tokens)]
    encoder = BPE(300).restore(store)
    for run in runs:
        found = tokenizer_of(run)
        assert found is not None
        assert found.encode(TEXT) == encoder.encode([TEXT.encode()])[0].tolist()
        assert (found.eos, found.vocab_size) == (encoder.separator, encoder.vocab_size)
    # The folder that a run has kept goes before everything else.
    kept = tmp_path / "text" / "tokenizer"
    kept.mkdir()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        tokenizer_of(tmp_path / "text")
    shutil.copy(store / "tokenizer.json", kept)
    assert tokenizer_of(tmp_path / "text").eos is None


def test_a_tokenizer_that_cannot_be_known_is_none(tmp_path: Path):
    gone = {"class_path": "ngpt_lab.data.TokenStore", "init_args": {"folder": str(tmp_path / "gone")}}
    ids = {"class_path": "ngpt_lab.data.NanoGPTFiles", "init_args": {"folder": str(tmp_path)}}
    file = {"class_path": "ngpt_lab.data.TokenizerFile", "init_args": {"path": str(tmp_path / "gone.json")}}
    for number, (source, tokenizer) in enumerate([(gone, None), (ids, None), (None, file)]):
        assert tokenizer_of(run_of(tmp_path / str(number), source, tokenizer)) is None
    assert tokenizer_of(tmp_path) is None


def test_training_keeps_the_tokenizer_of_data_that_have_one_among_the_run_s_own_files(tmp_path: Path):
    keep_tokenizer(SimpleNamespace(), tmp_path / "tokenizer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.yaml").write_text("{model: 1, data: 1, trainer: 1, normalize_weights: 1}")
    keep_tokenizer(SimpleNamespace(encoder=ByteEncoder()), tmp_path / "tokenizer")
    assert tokenizer_of(tmp_path).encode("one") == list(b"one")
    assert not list(foreign(tmp_path))
    (tmp_path / "tokenizer" / "mine.txt").write_text("mine")
    assert [path.name for path in foreign(tmp_path)] == ["mine.txt"]
