"""A trained decoder, from a run's folder or from one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.models import Decoder
from ngpt_lab.training.checkpoints import SafeCheckpointIO, check_shapes
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.composition import read_mapping
from ngpt_lab.training.run_record import flatten

CONFIG = "config.yaml"
WEIGHTS = "weights.safetensors"
LAST = Path("checkpoints") / "last.ckpt"


@dataclass(frozen=True, eq=False)
class Trained:
    """A decoder in float32 on the CPU, ready to be evaluated; `settings` is the run's config under dotted keys."""

    decoder: Decoder
    folder: Path
    settings: Mapping[str, Any]
    label: str


def load_trained(path: str | Path) -> Trained:
    """The decoder that a run trained; the run's text is not needed, and no random state is touched.

    Args:
        path: a run's folder, for its checkpoints/last.ckpt or else its weights.safetensors; or one such file of a run.

    Raises:
        InputError: no config.yaml, no weights, or weights of another model.
    """
    folder, file = _found(Path(path))
    weights = _weights(file)
    # Building draws first weights, which are overwritten.
    with torch.random.fork_rng(devices=[]):
        cli = _PartCLI(folder / CONFIG, "model", on="cpu")
    module, decoder = cli.model, cli.model.backbone
    target = decoder if file.suffix == ".safetensors" else module
    check_shapes(target, {"state_dict": weights}, file)
    target.load_state_dict(weights)
    step = "" if file.name in (LAST.name, WEIGHTS) else f"@{file.stem}"
    return Trained(decoder.float().eval(), folder, flatten(read_mapping(folder / CONFIG)), folder.resolve().name + step)


def write_weights(decoder: Decoder, folder: Path) -> None:
    """The decoder's weights alone, as the weights.safetensors that `load_trained` reads beside a run's config.yaml."""
    # Tied weights are written twice: safetensors holds no shared memory.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in decoder.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(weights))


def run_data(folder: str | Path) -> WindowDataModule:
    """The data a run was trained on, as its config.yaml names it.

    Raises:
        InputError: no config.yaml, or the text is not where it was.
    """
    data: WindowDataModule = _PartCLI(_with_config(Path(folder)) / CONFIG, "model", "data").datamodule
    data.prepare_data()
    return data


class _PartCLI(DryCLI):
    """Builds parts of a recorded run: its model can be looked at where its text is not, whatever else it was set to.

    Args:
        file: the run's config.
        sections: those of it that are read; the model's among them.
        on: the device type to build the model on.
    """

    def __init__(self, file: Path, *sections: str, on: str = "meta") -> None:
        recorded = {name: value for name, value in read_mapping(file).items() if name in sections}
        self.sections = {"data": {"class_path": "lightning.pytorch.LightningDataModule"}} | recorded
        super().__init__(["-c", str(file)], on)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read those sections, not all that the file sets."""
        self.config = parser.parse_object({"subcommand": "fit", "fit": self.sections})

    def instantiate_classes(self) -> None:
        """Build what was read."""
        with torch.device(self.on):
            built = self.parser.instantiate_classes(self.config).fit
        self.model, self.datamodule = built.model, built.data


def _found(path: Path) -> tuple[Path, Path]:
    """The run's folder and the file with its weights."""
    if not path.exists():
        raise InputError(f"there is no run folder or checkpoint {path}")
    if path.is_file():
        above = [folder for folder in path.absolute().parents[:2] if (folder / CONFIG).is_file()]
        return _with_config(above[0] if above else path.parent), path
    for file in (path / LAST, path / WEIGHTS):
        if file.is_file():
            return _with_config(path), file
    _with_config(path)
    raise InputError(f"{path} has neither {LAST} nor {WEIGHTS}: give a run that was trained, or one of its checkpoints")


def _with_config(folder: Path) -> Path:
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}: give a run's folder, or a checkpoint inside one")
    return folder


def _weights(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        try:
            weights: dict[str, torch.Tensor] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is not a safetensors file that can be read: {error}") from error
        return weights
    checkpoint = SafeCheckpointIO().load_checkpoint(file)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError(f"{file} holds no weights of a run: give one of its checkpoints")
    return checkpoint["state_dict"]
