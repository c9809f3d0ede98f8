"""Importing takes the memory of the files' names, not of their weights."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ngpt_lab.bench.memory import peak_of
from ngpt_lab.interop.references import REFERENCES
from ngpt_lab.training.checkpoints import load

SIZES = {
    "vocab_size": 65536,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SHARD = 10**9


def write_large(folder: Path, model_type: str) -> int:
    """Random weights in shards of a gigabyte, one in memory at a time; returns the bytes of all."""
    config: dict[str, Any] = {"model_type": model_type, **SIZES}
    reference = REFERENCES[f"hf-{model_type}"]["rotation"]
    skeleton = reference.skeleton(config)
    shapes = {
        theirs: reference.shape(theirs, skeleton.get_parameter(ours)) for ours, theirs in reference.names(skeleton).items()
    }
    assert sum(map(math.prod, shapes.values())) >= 2e9
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    weight_map, total = {}, 0
    for number, held in enumerate(shards(shapes), start=1):
        tensors = {name: random_values(name, shapes[name]) for name in held}
        weight_map |= dict.fromkeys(held, f"model-{number:05}.safetensors")
        save_file(tensors, folder / f"model-{number:05}.safetensors")
        total += sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Names whose tensors make a shard together."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if size + 2 * math.prod(shape) > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += 2 * math.prod(shape)
    yield names


def random_values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Matrices and scales in bfloat16, eigen learning rates in float32, as the release of the 8B model has them."""
    return torch.empty(shape, dtype=torch.float32 if "alpha" in name else torch.bfloat16).normal_(std=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["ngpt", "nemotron"])
def test_importing_two_billion_parameters_takes_less_than_their_size(model_type, tmp_path, capsys):
    folder, run = tmp_path / "folder", tmp_path / "run"
    try:
        weights = write_large(folder, model_type)
        importing = peak_of(["-m", "ngpt_lab", "import", str(folder), str(run)])
        loading = peak_of(["-c", f"from ngpt_lab.interop.trained import load_trained; load_trained({str(run)!r}, dtype=None)"])
        with capsys.disabled():
            told = f"{weights / 1e9:.2f} GB of weights; anonymous memory at most {importing / 1e9:.2f} GB importing"
            print(f"\n{model_type}: {told}, {loading / 1e9:.2f} GB loading")
        assert importing < 1.15 * weights
        assert loading < 1.15 * weights
        assert_same(folder, load(run / "checkpoints" / "last.ckpt", mmap=True)["state_dict"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


def assert_same(folder: Path, state_dict: dict[str, torch.Tensor]) -> None:
    """One tensor of each shard is the same bit for bit, and together they are as many."""
    config = json.loads((folder / "config.json").read_text())
    reference = REFERENCES[f"hf-{config['model_type']}"]["rotation"]
    ours = {theirs: name for name, theirs in reference.names(reference.skeleton(config)).items()}
    assert {f"backbone.{name}" for name in ours.values()} == set(state_dict)
    for shard in folder.glob("*.safetensors"):
        with safe_open(shard, "pt") as f:
            name = sorted(f.keys())[-1]
            theirs, mine = f.get_tensor(name), state_dict[f"backbone.{ours[name]}"]
            assert theirs.dtype == mine.dtype
            assert torch.equal(theirs.flatten(), mine.flatten())
