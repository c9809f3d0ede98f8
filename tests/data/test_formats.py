"""The same documents give the same tokens, byte for byte, whatever form they are kept in.

NGPT_LAB_TEXTS=FOLDER takes the documents from the .txt files of a folder.
"""

import itertools
import os
import random
from pathlib import Path

import datasets
import pytest
from sources.conftest import COMPRESS, CONTENT, SEPARATOR

from ngpt_lab.data import store
from ngpt_lab.data.sources.hub import HubDataset
from ngpt_lab.data.sources.saved import SavedDataset
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.tokenizers import BPE, Bytes

TOKENIZERS = {"bytes": Bytes(), "bpe": BPE(300)}
SPLITS = ("train", "validation", "test")
FORMS = [f"{kind}{compression}" for kind, compression in itertools.product(CONTENT, COMPRESS)]


def made_texts():
    """Three texts with what one form or another has to escape."""
    draw = random.Random(0)
    words = [
        "na\u00efve",
        "\u65e5\u672c\u8a9e",
        "the",
        "of",
        '"so"',
        "a,b",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "{}",
        "\U0001f642",
        "\\n",
    ]
    return [" ".join(draw.choices(words, k=3000)) for _ in range(3)]


@pytest.fixture(scope="module")
def texts():
    """Documents by split; where there are no splits, all those of training in a row."""
    folder = os.environ.get("NGPT_LAB_TEXTS")
    found = [path.read_bytes().decode() for path in sorted(Path(folder).glob("*.txt"))] if folder else made_texts()
    return {"train": found, "validation": [text[:20_000] for text in found[:2]], "test": [found[-1][-20_000:]]}


@pytest.fixture
def written(texts, tmp_path):
    """Writes the documents in one form, and gives the source that reads them: with splits of their own, or to be cut."""

    def write(form, splits):
        chosen = {split: texts[split] for split in splits}
        folder = tmp_path / "texts"
        folder.mkdir()
        if form == "save_to_disk":
            tables = {split: datasets.Dataset.from_dict({"text": documents}) for split, documents in chosen.items()}
            saved = datasets.DatasetDict(tables) if len(splits) > 1 else tables["train"]
            saved.save_to_disk(str(folder / "saved"))
            return SavedDataset(str(folder / "saved"))
        if form == "a file each":
            for split, documents in chosen.items():
                for number, document in enumerate(documents):
                    (folder / f"{split}-{number}.txt").write_bytes(document.encode())
            patterns = {split: f"{folder}/{split}-*.txt" for split in chosen}
            return TextFiles(patterns.pop("train"), **patterns)
        kind, _, compression = form.removeprefix(".").partition(".")
        paths = {split: folder / f"{split}{form}" for split in chosen}
        for split, documents in chosen.items():
            paths[split].write_bytes(COMPRESS[f".{compression}" if compression else ""](CONTENT[f".{kind}"](documents)))
        named = {split: str(path) for split, path in paths.items()}
        return TextFiles(named.pop("train"), separator=SEPARATOR if kind == "txt" else None, **named)

    return write


def tokens(source, tokenizer, folder):
    """Every file of a source's store but the record of where it came from."""
    made = store.build(source, tokenizer, folder, 1, 7000)
    return {path.name: path.read_bytes() for path in made.iterdir() if path.name != "source.json"}


@pytest.fixture(scope="module")
def expected(texts, tmp_path_factory):
    """The tokens of the plain .jsonl form; each is made once."""
    made = {}

    def of(tokenizer, splits):
        if (tokenizer, splits) not in made:
            folder = tmp_path_factory.mktemp("expected")
            for split in splits:
                (folder / f"{split}.jsonl").write_bytes(CONTENT[".jsonl"](texts[split]))
            named = {split: str(folder / f"{split}.jsonl") for split in splits}
            source = TextFiles(named.pop("train"), **named)
            made[tokenizer, splits] = tokens(source, TOKENIZERS[tokenizer], folder / "store")
        return made[tokenizer, splits]

    return of


@pytest.mark.parametrize("splits", [SPLITS, SPLITS[:1]], ids=["splits", "cut"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("form", [*FORMS, "a file each", "save_to_disk"])
def test_every_form_and_compression_gives_the_same_tokens(form, tokenizer, splits, written, expected, tmp_path):
    made = tokens(written(form, splits), TOKENIZERS[tokenizer], tmp_path / "store")
    assert made == expected(tokenizer, splits)
    assert {"manifest.json", "train-00001.bin", "train.starts"} <= made.keys()
    assert ("tokenizer.json" in made) == (tokenizer == "bpe")


@pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "downloaded"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("form", [".parquet", ".jsonl", ".jsonl.gz", ".csv", ".arrow"])
def test_a_folder_in_the_hubs_layout_gives_the_same_tokens(
    form, tokenizer, streaming, written, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    written(form, SPLITS)
    source = HubDataset(str(tmp_path / "texts"), validation="validation", test="test", streaming=streaming)
    assert tokens(source, TOKENIZERS[tokenizer], tmp_path / "store") == expected(tokenizer, SPLITS)
