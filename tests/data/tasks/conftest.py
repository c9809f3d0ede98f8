"""Small tables of examples, and what they become."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is asked for anything over the network."""
    import datasets

    def note(*_: object) -> None:
        asked.append("a connection")
        raise OSError("a connection was asked for")

    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    assert asked == []


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as lines of JSON; the file's path."""

    def write(name: str, rows: Sequence[dict[str, Any]]) -> str:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(file)

    return write


@pytest.fixture(scope="session")
def subwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of a few merges, in a folder as Hugging Face's classes write it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(["the city of Paris is the largest city of the country " * 20], trainer)
    folder = tmp_path_factory.mktemp("trained") / "tokenizer"
    folder.mkdir()
    trained.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


@pytest.fixture(scope="session")
def dropping(subwords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer without tokens for tildes and zero-width joiners."""
    tokenizer = Tokenizer.from_file(str(subwords / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace(Regex("[~\u200d]"), "")
    folder = tmp_path_factory.mktemp("dropping")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text((subwords / "tokenizer_config.json").read_text())
    return folder
