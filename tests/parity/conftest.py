"""The golden files, a fixture each: numbers that public reference implementations computed."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ngpt_lab.interop import Names, import_weights, reference_names
from ngpt_lab.models import Decoder

FOLDER = Path(__file__).parents[1] / "golden"
KINDS = {"r1": "hf-ngpt", "r2": "nvidia-ngpt", "r3": "hf-nemotron", "r4": "lucidrains-ngpt"}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class Golden:
    """One file, to be read in one dtype."""

    path: Path
    dtype: torch.dtype
    tensors: dict[str, Tensor]
    config: dict

    @classmethod
    def read(cls, path: Path, dtype: torch.dtype = torch.float64) -> "Golden":
        with safe_open(path, "pt") as f:
            return cls(path, dtype, {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["config"]))  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    @property
    def kind(self) -> str:
        return KINDS[self.path.name[:2]]

    @property
    def rope(self) -> str:
        return "literal" if "literal" in self.path.name else "rotation"

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.dtype]

    @property
    def names(self) -> Names:
        return reference_names(self.kind, self.config)

    @property
    def targets(self) -> Tensor:
        if "targets" in self:
            return self["targets"].masked_fill(self["targets"] == -1, -100)
        return following(self["labels"].masked_fill(self["labels"] == -1, -100))

    def decoder(self) -> Decoder:
        weights = {name: t.to(self.dtype) for name, t in self.below("param.").items()}
        return import_weights(self.kind, weights, self.config, rope=self.rope)

    def assert_close(self, name: str, ours: Tensor, floor: float = 0.0) -> None:
        """The error measure of the golden data: the largest difference over the largest value."""
        theirs = self[name]
        off = (ours.detach().double().view(theirs.shape) - theirs).abs().max() / theirs.abs().max().clamp_min(floor)
        assert off <= self.tolerance, f"{name} is off by {off:.1e}"


def following(tokens: Tensor) -> Tensor:
    """The ids that follow each position of (B, T); nothing follows the last."""
    return torch.cat((tokens[:, 1:], torch.full_like(tokens[:, :1], -100)), dim=1)


HEADS = sorted(FOLDER.glob("r3_nemotron_[!l]*.safetensors"))
# Those of language models.
FILES = sorted(set(FOLDER.glob("*.safetensors")) - set(HEADS))


@pytest.fixture(params=[(path, dtype) for dtype in TOLERANCE for path in FILES], ids=lambda p: f"{p[0].stem}-{str(p[1])[6:]}")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(*request.param)


@pytest.fixture(
    params=[(path, dtype) for dtype in TOLERANCE for path in FILES if path.name[:2] in ("r1", "r3")],
    ids=lambda p: f"{p[0].stem}-{str(p[1])[6:]}",
)
def hugging_face_golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(*request.param)


@pytest.fixture(
    params=[(path, dtype) for dtype in TOLERANCE for path in FILES if path.name[:2] != "r3"],
    ids=lambda p: f"{p[0].stem}-{str(p[1])[6:]}",
)
def trained_golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(*request.param)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden_float64(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(request.param)


@pytest.fixture(params=[(path, dtype) for dtype in TOLERANCE for path in HEADS], ids=lambda p: f"{p[0].stem}-{str(p[1])[6:]}")
def head_golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(*request.param)


@pytest.fixture
def golden_named():
    return lambda stem: Golden.read(FOLDER / f"{stem}.safetensors")
