"""The tokenizer of a run, kept or made again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import NemotronConfig, NemotronForCausalLM

from ngpt_lab.data.encoders import ByteEncoder
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import build
from ngpt_lab.data.tokenizers import BPE
from ngpt_lab.errors import InputError
from ngpt_lab.generation.loop import generate
from ngpt_lab.interop.import_run import import_folder
from ngpt_lab.interop.run_tokenizer import stop_ids, tokenizer_of
from ngpt_lab.interop.trained import load_trained
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


@pytest.fixture(scope="module")
def nemotron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("nemotron")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    NemotronForCausalLM(NemotronConfig(**sizes, num_key_value_heads=2, initializer_range=1.0)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("generation", "config"),
    [({"eos_token_id": "many"}, 1), ({"eos_token_id": 0}, 1), (None, "many"), (None, 0), (None, None)],
    ids=str,
)
def test_a_text_ends_where_model_generate_ends_it(nemotron: Path, tmp_path: Path, generation, config):
    model = NemotronForCausalLM.from_pretrained(nemotron)
    prompt = torch.tensor([[5, 6, 7]])
    whole = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 3:].tolist()
    ids = {"many": [31, whole[4]], 0: whole[6], 1: whole[0], None: None}
    folder = Path(shutil.copytree(nemotron, tmp_path / "folder"))
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"eos_token_id": ids[config]}))
    (folder / "generation_config.json").unlink()
    if generation:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids[generation["eos_token_id"]]}))
    import_folder(folder, tmp_path / "run")
    model = NemotronForCausalLM.from_pretrained(folder)
    theirs = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, 3:].tolist()
    stop = stop_ids(tmp_path / "run", None)
    named = model.generation_config.eos_token_id
    assert stop == ({named} if isinstance(named, int) else set(named or ()))
    decoder = load_trained(tmp_path / "run").decoder
    assert [int(new) for new in generate(decoder, prompt, max_new_tokens=12, stop=stop)] == theirs
    assert (len(theirs) < 12) == bool(stop)


def test_a_text_ends_with_the_tokenizer_s_token_where_nothing_else_is_named(tmp_path: Path):
    assert stop_ids(tmp_path, 7) == {7}
    assert stop_ids(tmp_path, None) == set()
    (tmp_path / "generation_config.json").write_text('{"do_sample": true}')
    assert stop_ids(tmp_path, 7) == {7}
    (tmp_path / "run.json").write_text('{"source": {"config": {"eos_token_id": 3}}}')
    assert stop_ids(tmp_path, 7) == {3}


@pytest.mark.parametrize("ids", ['"a"', "-1", "true", "1.5", "[1, null]", "99999999999999999999"])
def test_what_is_no_id_ends_no_text(tmp_path: Path, ids: str):
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {ids}}}')
    with pytest.raises(InputError, match=r"generation_config\.json: eos_token_id is .*: give a token's id, or a list of ids"):
        stop_ids(tmp_path, 0)


def test_training_keeps_the_tokenizer_of_data_that_have_one_among_the_run_s_own_files(tmp_path: Path):
    keep_tokenizer(SimpleNamespace(), tmp_path / "tokenizer")
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.yaml").write_text("{model: 1, data: 1, trainer: 1, normalize_weights: 1}")
    keep_tokenizer(SimpleNamespace(encoder=ByteEncoder()), tmp_path / "tokenizer")
    assert tokenizer_of(tmp_path).encode("one") == list(b"one")
    assert not list(foreign(tmp_path))
    (tmp_path / "tokenizer" / "mine.txt").write_text("mine")
    assert [path.name for path in foreign(tmp_path)] == ["mine.txt"]
