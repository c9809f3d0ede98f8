"""Hugging Face folders that cannot be imported: each is refused in one sentence that says what to do, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ngpt_lab.cli import main
from ngpt_lab.files import WriteError, Writing
from ngpt_lab.interop.references import REFERENCES

CONFIG = {
    "architectures": ["NGPTForCausalLM"],
    "model_type": "ngpt",
    "vocab_size": 13,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound folder: an nGPT in two shards, with a tokenizer."""
    folder = tmp_path_factory.mktemp("whole") / "folder"
    folder.mkdir()
    reference = REFERENCES["hf-ngpt"]["rotation"]
    skeleton = reference.skeleton(CONFIG)
    names = reference.names(skeleton)
    tensors = {theirs: torch.rand(reference.shape(theirs, skeleton.get_parameter(ours))) for ours, theirs in names.items()}
    shards = {FIRST: sorted(tensors)[::2], SECOND: sorted(tensors)[1::2]}
    for file, kept in shards.items():
        save_file({name: tensors[name] for name in kept}, folder / file)
    weight_map = {name: file for file, kept in shards.items() for name in kept}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "folder"))


def setting(**fields: Any) -> Spoil:
    """Other fields in config.json; None takes one away."""
    told = {name: value for name, value in {**CONFIG, **fields}.items() if value is not None}
    return lambda folder: (folder / "config.json").write_text(json.dumps(told))


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


def without(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name: str, share: float) -> Spoil:
    return lambda folder: os.truncate(folder / name, int((folder / name).stat().st_size * share))


def changed(file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Other tensors in a shard; the index stays."""

    def spoil(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / file).items()}
        change(tensors)
        save_file(tensors, folder / file)

    return spoil


def mapped(change: Callable[[dict[str, str]], object]) -> Spoil:
    """Another map in the index."""

    def spoil(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return spoil


def renamed(rename: Callable[[str], str]) -> Spoil:
    """One file of all tensors, under other names."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / FIRST) | load_file(folder / SECOND)
        save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")

    return spoil


class Evil:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("unpickled",)


def pickled(folder: Path) -> None:
    without(FIRST, SECOND, INDEX)(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


def tampered(folder: Path) -> None:
    """The header of a shard says that its tensors lie where it ends."""
    content = bytearray((folder / FIRST).read_bytes())
    content[:8] = (2**40).to_bytes(8, "little")
    (folder / FIRST).write_bytes(content)


def elsewhere(name: str) -> Spoil:
    """A link to a file outside of the folder, which may be one that nobody is to see."""

    def spoil(folder: Path) -> None:
        target = folder.parent / "secret"
        if (folder / name).is_file():
            (folder / name).rename(target)
        else:
            target.write_text("secret")
        (folder / name).symlink_to(target)

    return spoil


def with_head(weight: torch.Tensor, **fields: Any) -> Spoil:
    """A folder of sequence classification with this head."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / FIRST) | load_file(folder / SECOND) | {"score.weight": weight}
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(("lm_head", "sz"))}
        save_file(kept, folder / "model.safetensors")
        setting(architectures=["NGPTForSequenceClassification"], **fields)(folder)

    return spoil


EMBEDDING = "model.embed_tokens.weight"
BAD: dict[str, tuple[Spoil, str]] = {
    "no config": (without("config.json"), "folder has no config.json: give a folder that"),
    "config is a list": (text("config.json", "[1]"), "config.json holds a list where a table of fields belongs"),
    "config is no JSON": (text("config.json", '{"model_type": '), "config.json is not JSON: Expecting value"),
    "config nests without end": (text("config.json", "[" * 100_000), "config.json is not JSON"),
    "config is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00\x01"), "config.json is not JSON"),
    "config says NaN": (text("config.json", '{"temperature": NaN}'), "config.json is not JSON: NaN is no number"),
    "another model": (setting(model_type="llama"), "config.json: model_type is 'llama': only nemotron and ngpt can be"),
    "no model type": (setting(model_type=None), "config.json: model_type is None: only nemotron and ngpt can be imported"),
    "a table for a model type": (setting(model_type={}), "config.json: model_type is {}"),
    "another class": (setting(architectures=["NGPTForMaskedLM"]), "config.json: architectures is ['NGPTForMaskedLM']: only"),
    "the other model's class": (setting(architectures=["NemotronForCausalLM"]), "only NGPTForCausalLM"),
    "a base model": (setting(architectures=["NGPTModel"]), "it holds NGPTModel, whose stream no head reads"),
    "a base model's names": (renamed(lambda name: name.removeprefix("model.")), "it holds NGPTModel, whose stream no head"),
    "an unknown field": (setting(qk_layernorm=True), "config.json: hf-ngpt config: qk_layernorm is not known here"),
    "quantized": (setting(quantization_config={"bits": 4}), "config.json: hf-ngpt config: quantization_config is not known"),
    "a size of another kind": (setting(hidden_size="8"), "config.json: hf-ngpt config: hidden_size is '8': it must be a whole"),
    "a size beyond all": (setting(vocab_size=2**62), "vocab_size is 4611686018427387904: it must be a whole number of at"),
    "layers without end": (setting(num_hidden_layers=10**8), "num_hidden_layers is 100000000, but the folder holds 23 tensors"),
    "heads that do not divide": (setting(num_attention_heads=3, num_key_value_heads=2), "config.json: dims.n_heads (3) is not"),
    "an unknown activation": (setting(hidden_act="xielu"), "config.json: hf-ngpt config: hidden_act is 'xielu': choose one"),
    "scaled rope": (setting(rope_scaling={"rope_type": "yarn"}), "rope_type 'yarn' is not supported"),
    "another size": (setting(vocab_size=14), f"{EMBEDDING} has shape [13, 8], not [14, 8]"),
    "fewer layers": (setting(num_hidden_layers=1), "model.layers.1.attn_alpha has no place"),
    "more layers": (setting(num_hidden_layers=3), "model.layers.2.self_attn.q_proj.weight is missing"),
    "another head": (setting(architectures=["NGPTForSequenceClassification"]), "score.weight is missing"),
    "labels that disagree": (
        with_head(torch.zeros(2, 8), id2label={"0": "a", "1": "b", "2": "c"}),
        "config.json: id2label names 3 labels, and score.weight has 2 rows: they must agree",
    ),
    "a head without a shape": (with_head(torch.tensor(1.0)), "score.weight has shape [], not [2, 8]"),
    "an unknown problem": (with_head(torch.zeros(2, 8), problem_type="ranking"), "problem_type is 'ranking': choose one of"),
    "a list for a problem": (with_head(torch.zeros(2, 8), problem_type=["regression"]), "problem_type is ['regression']"),
    "one class of one": (
        with_head(torch.zeros(1, 8), id2label={"0": "a"}, problem_type="single_label_classification"),
        "config.json: num_labels is 1",
    ),
    "a pad token of another kind": (
        with_head(torch.zeros(2, 8), pad_token_id="pad"),
        "pad_token_id is 'pad': it must be the number",
    ),
    "no weights": (without(FIRST, SECOND, INDEX), "folder has neither model.safetensors nor model.safetensors.index.json"),
    "pickles alone": (pickled, "folder holds pickled weights alone (pytorch_model.bin), which are not opened"),
    "a shard is missing": (without(SECOND), f"folder lacks {SECOND}, which {INDEX} names: copy what is missing"),
    "a shard is cut": (cut(FIRST, 0.9), f"{FIRST} is not a whole safetensors file"),
    "a shard is cut in its header": (cut(FIRST, 0.05), f"{FIRST} is not a whole safetensors file"),
    "a shard is empty": (cut(FIRST, 0), f"{FIRST} is not a whole safetensors file"),
    "a shard lies about its length": (tampered, f"{FIRST} is not a whole safetensors file"),
    "a shard is a folder": (lambda f: ((f / FIRST).unlink(), (f / FIRST).mkdir()), f"folder lacks {FIRST}"),
    "the index is no JSON": (text(INDEX, "{"), f"{INDEX} is not JSON"),
    "the index maps nothing": (text(INDEX, "{}"), f"{INDEX} has no weight_map from tensors to their files"),
    "the index maps to numbers": (text(INDEX, '{"weight_map": {"a": 1}}'), f"{INDEX} has no weight_map"),
    "the index points elsewhere": (
        mapped(lambda table: table.update({EMBEDDING: "../elsewhere.safetensors"})),
        f"{INDEX} names '../elsewhere.safetensors', which is no safetensors file of its folder",
    ),
    "the index names a pickle": (
        mapped(lambda table: table.update({EMBEDDING: "pytorch_model.bin"})),
        f"{INDEX} names 'pytorch_model.bin', which is no safetensors file of its folder",
    ),
    "the index mistakes a shard": (
        mapped(lambda table: table.update({EMBEDDING: FIRST if table[EMBEDDING] == SECOND else SECOND})),
        f"{INDEX} says that {EMBEDDING} is in model-0000",
    ),
    "a tensor is missing": (
        lambda f: (changed(FIRST, lambda t: t.pop("sz.weight"))(f), mapped(lambda t: t.pop("sz.weight"))(f)),
        "folder: hf-ngpt state dict does not fit its config: sz.weight is missing",
    ),
    "a tensor too many": (changed(FIRST, lambda t: t.update(spare=torch.zeros(2))), "its config: spare has no place"),
    "a tensor is misshapen": (
        changed(SECOND, lambda t: t.update({name: tensor[:-1] for name, tensor in t.items() if "embed" in name})),
        f"its config: {EMBEDDING} has shape [12, 8], not [13, 8]",
    ),
    "a tensor is of whole numbers": (
        changed(SECOND, lambda t: t.update({name: tensor.long() for name, tensor in t.items() if "embed" in name})),
        f"its config: {EMBEDDING} is of torch.int64, not floating point",
    ),
    "the config lies elsewhere": (elsewhere("config.json"), "config.json is a link to "),
    "the index lies elsewhere": (elsewhere(INDEX), f"{INDEX} is a link to "),
    "a shard lies elsewhere": (elsewhere(FIRST), f"{FIRST} is a link to "),
    "the tokenizer lies elsewhere": (elsewhere("tokenizer.json"), "tokenizer.json is a link to "),
    "the merges lie elsewhere": (elsewhere("merges.txt"), "outside of its folder: put the file itself there"),
    "the tokenizer is no JSON": (text("tokenizer.json", "{"), "tokenizer.json is not JSON"),
    "the generation config is no JSON": (text("generation_config.json", "nothing"), "generation_config.json is not JSON"),
}


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["import", *map(str, words)])
    told = capsys.readouterr()
    assert stop.value.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("ngpt-lab: ")
    assert len(told.err) < 1000
    return told.err


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_refused_in_one_sentence_and_nothing_is_left(case, folder, tmp_path, monkeypatch, capsys):
    spoil, said = BAD[case]
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert said in refusal(capsys, folder, tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == before


def test_the_sound_folder_is_imported(folder, tmp_path, capsys):
    main(["import", str(folder), str(tmp_path / "run")])
    assert "holds NGPTForCausalLM with 1,061 parameters" in capsys.readouterr().out


def test_links_inside_a_folder_or_into_the_blobs_of_the_hub_s_cache_are_followed(folder, tmp_path, capsys):
    snapshot = tmp_path / "models--me--mine" / "snapshots" / "0123abc"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    (tmp_path / "link").symlink_to(snapshot)
    (folder / FIRST).rename(folder / "kept")
    (folder / FIRST).symlink_to("kept")
    for number, source in enumerate((snapshot, tmp_path / "link", folder)):
        main(["import", str(source), str(tmp_path / f"run-{number}")])
        assert "holds NGPTForCausalLM with 1,061 parameters" in capsys.readouterr().out


def test_a_folder_in_use_stays_as_it_is(folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious").write_text("1")
    assert f"{run} is in use: choose another folder" in refusal(capsys, folder, run)
    assert [path.name for path in run.iterdir()] == ["precious"]
    (tmp_path / "file").write_text("2")
    assert "file is in use" in refusal(capsys, folder, tmp_path / "file")
    assert "run is in use" in refusal(capsys, folder, tmp_path / "folder" / ".." / "run")
    assert "precious" in refusal(capsys, folder, run / "precious" / "below")  # a file where a folder would have to be
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "link is in use" in refusal(capsys, folder, tmp_path / "link")
    assert (run / "precious").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "run"]


def test_what_is_no_folder_is_refused(folder, tmp_path, capsys):
    assert f"there is no folder {tmp_path / 'nowhere'}" in refusal(capsys, tmp_path / "nowhere", tmp_path / "run")
    assert "config.json: give one" in refusal(capsys, folder / "config.json", tmp_path / "run")
    assert "the following arguments are required: DIR" in refusal(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_told_and_nothing_is_left(folder, tmp_path, monkeypatch, capsys):
    def full(self: Writing, content: bytes) -> int:
        raise WriteError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writing, "write", full)
    assert "cannot be written: No space left on device" in refusal(capsys, folder, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_import_that_is_stopped_leaves_nothing(stop, folder, tmp_path, monkeypatch):
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr("ngpt_lab.interop.import_run.SafeCheckpointIO.save_checkpoint", stopped)
    with pytest.raises(SystemExit):
        main(["import", str(folder), str(tmp_path / "run")])
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
