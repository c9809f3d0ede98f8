"""Runs as Hugging Face model folders, loaded where this package is not."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import NemotronConfig, NemotronForQuestionAnswering, NemotronForTokenClassification
from transformers.utils import logging

from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.generation.loop import generate
from ngpt_lab.hf import NGPTConfig, NGPTForQuestionAnswering, NGPTForSequenceClassification
from ngpt_lab.interop import export_run, weight_files
from ngpt_lab.interop.hf_folder import FolderTensors
from ngpt_lab.interop.import_run import import_folder
from ngpt_lab.interop.single_file import Module
from ngpt_lab.interop.trained import Trained, load_trained
from ngpt_lab.models import NGPT, Dims
from ngpt_lab.models.ngpt import UnitQKNorm

ROOT = Path(__file__).parents[2]
CONFIGS, README = ROOT / "configs", (ROOT / "README.md").read_text()
Train = Callable[..., Path]
MODELS = ("ngpt", "nemotron")
TEXT = "the norm of"
NEW = 12

# What a user without this package runs; the results go to a file.
ELSEWHERE = """
import json, sys, warnings
sys.modules["ngpt_lab"] = None
warnings.simplefilter("error")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

found = {}
for path in sys.argv[2:]:
    flag = {"trust_remote_code": True} if "ngpt" in path else {}
    tokenizer = AutoTokenizer.from_pretrained(path, **flag)
    inputs = tokenizer.encode("the norm of", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(path, **flag)
    with torch.no_grad():
        logits = model(inputs).logits
    ids = model.generate(inputs, max_length=23)[0].tolist()
    said = [tokenizer.decode(ids)]
    half = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, device_map="auto", **flag)
    said.append(tokenizer.decode(half.generate(inputs.to(half.device), max_length=20)[0]))
    dtypes = {name: str(tensor.dtype) for name, tensor in half.state_dict().items()}
    found[path.rsplit("/", 1)[-1]] = dict(
        ids=ids, said=said, dtypes=dtypes, logits=logits.tolist(), module=type(model).__module__, eos=tokenizer.eos_token_id
    )
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def runs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each model."""
    at = tmp_path_factory.mktemp("runs")
    return {name: train(at / name, CONFIGS / "model" / f"{name}.yaml") for name in MODELS}


@pytest.fixture(scope="module")
def folders(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of them exported."""
    at = tmp_path_factory.mktemp("folders")
    for name, run in runs.items():
        main(["export", str(run), str(at / name)])
    return {name: at / name for name in runs}


@pytest.fixture(scope="module")
def elsewhere(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out where this package cannot be imported."""
    at = tmp_path_factory.mktemp("elsewhere")
    caches = {"HF_HOME": str(at / "home"), "HF_MODULES_CACHE": str(at / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ELSEWHERE, str(at / "found.json"), *map(str, folders.values())]
    done = subprocess.run(command, env={**os.environ, **caches}, cwd=at, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.strip() and "Loading weights" not in line]
    assert not told  # a warning tells a user that something is wrong
    return json.loads((at / "found.json").read_text())


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_exported_run_gives_the_same_logits_and_ids_without_this_package(name, runs, elsewhere):
    trained, found = load_trained(runs[name]), elsewhere[name]
    tokens = torch.tensor([list(TEXT.encode())])
    ours, theirs = trained.decoder(tokens), torch.tensor(found["logits"])
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()
    ids = [int(new) for new in generate(trained.decoder, tokens, max_new_tokens=NEW, stop=[0])]
    assert found["ids"] == [*TEXT.encode(), *ids]
    assert found["said"][0] == bytes(found["ids"]).decode(errors="replace")
    assert found["eos"] == 0


def test_the_quickstart_works_in_bfloat16_with_eigen_learning_rates_in_float32(elsewhere):
    for found in elsewhere.values():
        assert found["said"][1].startswith(TEXT)
    assert set(elsewhere["nemotron"]["dtypes"].values()) == {"torch.bfloat16"}
    dtypes = elsewhere["ngpt"]["dtypes"]
    assert {name for name, dtype in dtypes.items() if dtype == "torch.float32"} == {n for n in dtypes if "alpha" in n}
    assert elsewhere["ngpt"]["module"].endswith("modeling_ngpt")
    assert elsewhere["nemotron"]["module"] == "transformers.models.nemotron.modeling_nemotron"


@pytest.mark.parametrize("name", MODELS)
def test_what_goes_out_and_comes_back_has_the_same_bits(name, runs, folders, tmp_path):
    import_folder(folders[name], tmp_path / "run")
    one, other = (load_trained(run, None).decoder.state_dict() for run in (runs[name], tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) and value.dtype == other[key].dtype for key, value in one.items())
    main(["export", str(tmp_path / "run"), str(tmp_path / "again")])
    card = (tmp_path / "again" / "README.md").read_text()
    assert "| positions it is made for | 64 |" in card
    assert "trained on" not in card
    for file in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (folders[name] / file).read_bytes()
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (folders[name], tmp_path / "again"))
    assert first == second


@pytest.mark.parametrize("name", MODELS)
def test_weights_go_out_in_shards_and_in_another_dtype(name, runs, tmp_path):
    folder = tmp_path / "folder"
    main(["export", str(runs[name]), str(folder), "--dtype", "bfloat16", "--max_shard_size", "100KB"])
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(files) > 1
    assert sorted(set(index["weight_map"].values())) == files
    assert all((folder / file).stat().st_mode == (folder / "config.json").stat().st_mode for file in files)
    decoder, tensors = load_trained(runs[name], torch.bfloat16).decoder, FolderTensors(folder)
    assert torch.equal(tensors["model.embed_tokens.weight"], decoder.embedding.weight)
    assert {name for name in tensors if tensors[name].dtype == torch.float32} == {name for name in tensors if "alpha" in name}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_model_card_says_what_the_run_recorded_and_of_an_earlier_checkpoint_only_what_holds(runs, folders, tmp_path):
    record = json.loads((runs["ngpt"] / "run.json").read_text())
    card = (folders["ngpt"] / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["ngpt", "ngpt-lab"]}
    for told in (
        "# ngpt\n",
        "trust_remote_code=True",
        "import ngpt_lab.hf",
        f"| val/loss | {record['final']['val/loss']:.6g} |",
    ):
        assert told in card
    assert f"| tokens | {record['tokens']:,} |" in card
    assert "| text | words.txt |" in card  # not the path that the run's config has
    assert str(runs["ngpt"].parent) in (runs["ngpt"] / "config.yaml").read_text()
    assert str(runs["ngpt"].parent) not in card
    assert "| positions trained on | 64 |" in card
    assert "attention_mask=torch.ones_like(inputs)" in card
    assert "trust_remote_code" not in (folders["nemotron"] / "README.md").read_text()
    early = next((runs["ngpt"] / "checkpoints").glob("step-*3.ckpt"))
    main(["export", str(early), str(tmp_path / "early")])
    card = (tmp_path / "early" / "README.md").read_text()
    assert "| steps | 3 |" in card
    assert f"| tokens | {3 * record['tokens_per_step']:,} |" in card
    assert "val/loss" not in card
    assert not torch.equal(*(load_file(f / "model.safetensors")["sz.weight"] for f in (tmp_path / "early", folders["ngpt"])))


def test_export_needs_no_transformers():
    waiting, seen, foreign = ["ngpt_lab.interop.export_run"], set(), set()
    while waiting:
        module = Module(waiting.pop())
        seen.add(module.name)
        for node in ast.walk(module.tree):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            foreign |= {name.partition(".")[0] for name in named}
            waiting += [name for name in named if name.startswith("ngpt_lab") and name not in seen]
    assert "ngpt_lab.nn.slots" in seen
    assert {"torch", "safetensors"} <= foreign
    assert "transformers" not in foreign


def refusal(*arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_in_one_sentence_and_leaves_nothing(runs, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert "taken is in use" in refusal(runs["ngpt"], taken, capsys=capsys)
    assert "there is no run folder or checkpoint" in refusal(tmp_path / "nowhere", tmp_path / "new", capsys=capsys)
    for size in ("huge", "0GB", "-1GB", "nanGB", "infGB"):
        told = refusal(runs["ngpt"], tmp_path / "new", f"--max_shard_size={size}", capsys=capsys)
        assert f"--max_shard_size is '{size}': give a number above 0 and a unit" in told
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    config = (runs["ngpt"] / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("ngpt_lab.sphere.lerp", "ngpt_lab.sphere.slerp"))
    (other / "checkpoints" / "last.ckpt").write_bytes((runs["ngpt"] / "checkpoints" / "last.ckpt").read_bytes())
    assert "cannot export to hf-ngpt: attention_residual.path is slerp" in refusal(other, tmp_path / "new", capsys=capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "taken"]
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


def test_a_head_that_no_class_holds_is_refused_by_name(runs):
    other = replace(load_trained(runs["nemotron"]), head=torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"cannot export a task's head of Linear: Hugging Face's classes hold SequenceHead"):
        export_run.translated(other, {})


def test_scales_that_are_stored_anew_are_rounded_once(tmp_path):
    torch.manual_seed(0)
    dims = Dims(vocab_size=13, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, d_head=32, d_ff=96)
    decoder = NGPT(dims, qk_norm=partial(UnitQKNorm, init=[0.7, 1.3]))
    for block in decoder.blocks:
        torch.nn.init.uniform_(block.attention.qk_norm.s_qk.stored)
    stored = decoder.blocks[0].attention.qk_norm.s_qk.stored.detach().clone()
    _, tensors = export_run.translated(Trained(decoder, tmp_path, {}, "run"), {}, torch.bfloat16)
    sqk, factor = tensors["model.layers.0.self_attn.sqk.weight"][:, 0], 0.7 / 1.3
    assert torch.equal(sqk, (stored * factor).bfloat16())
    assert not torch.equal(sqk, stored.bfloat16() * factor)
    wide = export_run.translated(Trained(decoder.bfloat16(), tmp_path, {}, "run"), {}, torch.float32)[1]
    expected = stored.bfloat16().float() * factor
    assert torch.allclose(wide["model.layers.0.self_attn.sqk.weight"][:, 0], expected, rtol=1e-6)


def test_the_readme_s_lines_continue_a_text_with_an_exported_folder(folders, capsys):
    [block] = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "AutoModelForCausalLM" in block]
    assert block.count('"my-ngpt"') == 2
    logging.disable_progress_bar()
    exec(block.replace("my-ngpt", str(folders["ngpt"])), {})
    assert capsys.readouterr().out.startswith("import ")


def test_nothing_stands_under_the_final_name_before_all_of_it_is_there(runs, tmp_path, monkeypatch, capsys):
    seen: list[list[str]] = []

    def interrupted(path: Path) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])
        raise KeyboardInterrupt

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(export_run, "sync_file", interrupted)  # the last thing before the folder gets its name
        with pytest.raises(KeyboardInterrupt):
            export_run.export_run(runs["ngpt"], tmp_path / "new")
    assert len(seen[0]) == 1
    assert seen[0][0].startswith(".new.")
    monkeypatch.setattr(weight_files, "save_file", full)
    assert "No space left on device" in refusal(runs["ngpt"], tmp_path / "new", capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_known_tokenizer_goes_out_without_one_and_says_so(runs, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    config = yaml.safe_load((runs["nemotron"] / "config.yaml").read_text())
    del config["data"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "checkpoints" / "last.ckpt").write_bytes((runs["nemotron"] / "checkpoints" / "last.ckpt").read_bytes())
    main(["export", str(run), str(tmp_path / "folder")])
    assert "without a tokenizer" in capsys.readouterr().out
    assert "The run's tokenizer is not known" in (tmp_path / "folder" / "README.md").read_text()
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["eos_token_id"] is None


SIZES = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 3,
    "bos_token_id": None,
    "eos_token_id": 5,
}
NAMED = {"id2label": {0: "bad", 1: "good", 2: "neither"}, "label2id": {"bad": 0, "good": 1, "neither": 2}}
TASKS = [
    (NGPTConfig, NGPTForSequenceClassification, {**NAMED, "problem_type": "multi_label_classification"}),
    (NGPTConfig, NGPTForQuestionAnswering, {}),
    (NemotronConfig, NemotronForTokenClassification, {**NAMED, "classifier_dropout": 0.2}),
    (NemotronConfig, NemotronForQuestionAnswering, {}),
]


@pytest.mark.parametrize(("config", "model", "said"), TASKS, ids=[model.__name__ for _, model, _ in TASKS])
@torch.no_grad()
def test_a_task_s_model_comes_in_and_goes_out_as_it_was(config, model, said, tmp_path):
    torch.manual_seed(0)
    theirs = model(config(**SIZES, **said)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run")
    export_run.export_run(tmp_path / "run", tmp_path / "ours")
    ours = model.from_pretrained(tmp_path / "ours").eval()
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    tokens = torch.randint(4, 31, (2, 9), generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours(tokens)[0], theirs(tokens)[0])
    for field in ("architectures", "id2label", "label2id", "problem_type", "pad_token_id", "eos_token_id", "num_labels"):
        if field in said or not field.startswith("problem"):
            assert getattr(ours.config, field) == getattr(theirs.config, field), field
    assert set(FolderTensors(tmp_path / "ours")) == set(FolderTensors(tmp_path / "theirs"))
