"""Folders as the reference writes them, from its golden numbers, and a small model with no two scales alike."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM
from ngpt_lab.nn.scale import Scale

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("r1_*.safetensors"))

logging.disable_progress_bar()


@dataclass(frozen=True)
class Folder:
    """A golden file, and the Hugging Face folder of its model."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name[6:]: tensor for name, tensor in self.tensors.items() if name.startswith("param.")}

    def assert_close(self, name: str, ours: Tensor, where: Tensor | None = None) -> None:
        theirs = self[name] if where is None else self[name][where]
        off = (ours.detach() - theirs).abs().max() / theirs.abs().max()
        assert off <= 1e-10, f"{name} is off by {off:.1e}"


def write_folder(path: Path, weights: dict[str, Tensor], config: dict) -> Path:
    """config.json and one file of weights."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    with safe_open(request.param, "pt") as f:
        tensors, config = {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["config"])  # noqa: SIM118
    made = Folder(tmp_path / "model", tensors, config)
    write_folder(made.path, made.weights, config)
    return made


SIZES = {
    "vocab_size": 41,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "initializer_range": 0.1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_config(**changes) -> NGPTConfig:
    return NGPTConfig(**{**SIZES, **changes})


def make_model(cls=NGPTForCausalLM, dtype: torch.dtype = torch.float64, **changes):
    torch.manual_seed(0)
    model = cls(make_config(**changes)).to(dtype).eval()
    for part in model.modules():
        if isinstance(part, Scale):
            part.stored.data *= 1 + torch.rand_like(part.stored)
    return model


@pytest.fixture
def small_config():
    """Makes a config of small sizes, with changes."""
    return make_config


@pytest.fixture
def small_model():
    """Makes a model of few numbers whose scales all differ, of a class, with changes to its config; not in training."""
    return make_model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(3, 41, (2, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def left_padded(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The second row's first three tokens are padding."""
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[1, :3] = mask[1, :3] = 0
    return padded, mask
