"""A trained decoder, from the folder of a run or of an import, or from one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.interop.parts import Part
from ngpt_lab.interop.tensors import fill
from ngpt_lab.models import Decoder
from ngpt_lab.nn.attend import attention_named
from ngpt_lab.training.checkpoints import check_shapes
from ngpt_lab.training.composition import read_mapping
from ngpt_lab.training.run_record import flatten
from ngpt_lab.training.run_weights import CONFIG, LAST, WEIGHTS, find_weights, read_weights, with_config


@dataclass(frozen=True, eq=False)
class Trained:
    """A decoder on the CPU, ready to be evaluated.

    Args:
        decoder: without its language-model head where the run was of a task.
        folder: the run's.
        settings: the run's config under dotted keys.
        label: the run's name, and which of its checkpoints.
        head: the task's head, None where the run was of a language model.
    """

    decoder: Decoder
    folder: Path
    settings: Mapping[str, Any]
    label: str
    head: nn.Module | None = None


def load_trained(path: str | Path, dtype: torch.dtype | None = torch.float32) -> Trained:
    """The decoder that a run trained or an import holds; its text is not needed, and no random state is touched.

    Weights that come in the dtype asked for are read from the file when they are used; the others are held once, in that
    dtype. Eigen learning rates stay in float32 under a narrower one.

    Args:
        path: a run's folder, for its checkpoints/last.ckpt or else its weights.safetensors; or one such file of a run.
        dtype: of all weights; None leaves each in its own.

    Raises:
        InputError: no config.yaml, no weights, or weights of another model.
    """
    folder, file = find_weights(Path(path))
    weights = read_weights(file)
    recorded = read_mapping(folder / CONFIG)
    module = Part(recorded, "model").built
    decoder = module.backbone
    of_decoder = file.suffix == ".safetensors"
    target = decoder if of_decoder else module
    check_shapes(target, {"state_dict": weights}, file)
    fill(target, {name: convert(name, tensor, dtype) for name, tensor in weights.items()})
    step = "" if file.name in (LAST.name, WEIGHTS) else f"@{file.stem}"
    head = None if of_decoder else getattr(module, "head", None)
    decoder.attend = attention_named("auto")  # what it was trained with may need the machine it was trained on
    return Trained(decoder.eval(), folder, flatten(recorded), folder.resolve().name + step, head and head.eval())


# How the names of eigen learning rates end, ours and Hugging Face's.
EIGEN = ("_residual.alpha.stored", ".attn_alpha", ".mlp_alpha")


def convert(name: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A weight in `dtype`; the small steps that eigen learning rates take are lost in fewer bits than float32 has."""
    if dtype is None or not tensor.is_floating_point():
        return tensor
    narrow = torch.finfo(dtype).bits < 32 and name.endswith(EIGEN)
    return tensor.to(torch.float32 if narrow else dtype)


def write_weights(decoder: Decoder, folder: Path) -> None:
    """The decoder's weights alone, as the weights.safetensors that `load_trained` reads beside a run's config.yaml."""
    # Tied weights are written twice: safetensors holds no shared memory.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in decoder.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(weights))


def run_data(folder: str | Path) -> WindowDataModule:
    """The data a run was trained on, as its config.yaml names it.

    Raises:
        InputError: no config.yaml, no data in it, or the text is not where it was.
    """
    recorded = read_mapping(with_config(Path(folder)) / CONFIG)
    if "data" not in recorded:
        raise InputError(f"{folder} was not trained here, so its {CONFIG} names no data: give a run that was")
    data: WindowDataModule = Part(recorded, "data").built
    data.prepare_data()
    return data
