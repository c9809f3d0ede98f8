"""Runs to load, and models as Hugging Face folders to import."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from neighbours import of
from safetensors.torch import save_file
from torch import Tensor

Write = Callable[..., Path]
train = of("analysis").train
PARITY = of("parity")


@pytest.fixture(scope="session")
def golden_named() -> Callable[[str], Any]:
    """A golden file by its stem, in float64."""
    return lambda stem: PARITY.Golden.read(PARITY.FOLDER / f"{stem}.safetensors")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes tensors and a config as Hugging Face's save_pretrained does, in one file or in shards with an index."""

    def folder(tensors: Mapping[str, Tensor], config: Mapping[str, Any], shards: int = 1, name: str = "folder") -> Path:
        made = tmp_path / name
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config))
        names = sorted(tensors)
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)] if shards > 1 else ["model.safetensors"]
        weight_map = {tensor: files[i % shards] for i, tensor in enumerate(names)}
        for file in files:
            kept = {tensor: tensors[tensor].contiguous() for tensor in names if weight_map[tensor] == file}
            save_file(kept, made / file, metadata={"format": "pt"})
        if shards > 1:
            index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
            (made / "model.safetensors.index.json").write_text(json.dumps(index))
        return made

    return folder
