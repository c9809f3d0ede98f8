"""Where the weights of a run or of an import lie, and what is in the file."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoint_form import wrong_in
from ngpt_lab.training.checkpoints import FOLDER, is_folder, load

CONFIG = "config.yaml"
WEIGHTS = "weights.safetensors"
LAST = Path(FOLDER) / "last.ckpt"


def find_weights(path: Path) -> tuple[Path, Path]:
    """The folder of a run and the file with its weights.

    Args:
        path: a run's folder, for its checkpoints/last.ckpt or else its weights.safetensors; or one such file of a run.

    Raises:
        InputError: there is no such file, or no config.yaml with it.
    """
    if not path.exists():
        raise InputError(f"there is no run folder or checkpoint {path}")
    if path.is_file() or is_folder(path):
        above = [folder for folder in path.absolute().parents[:2] if (folder / CONFIG).is_file()]
        return with_config(above[0] if above else path.parent), path
    for file in (path / LAST, path / WEIGHTS):
        if file.is_file() or is_folder(file):
            return with_config(path), file
    with_config(path)
    raise InputError(f"{path} has neither {LAST} nor {WEIGHTS}: give a run that was trained, or one of its checkpoints")


def with_config(folder: Path) -> Path:
    """The folder, if it is a run's.

    Raises:
        InputError: it has no config.yaml.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} has no {CONFIG}: give a run's folder, or a checkpoint inside one")
    return folder


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file: of a checkpoint those of the whole module, of a .safetensors those of the decoder alone.

    Raises:
        InputError: it cannot be read, or holds no weights.
    """
    if file.suffix == ".safetensors":
        try:
            weights: dict[str, torch.Tensor] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is not a safetensors file that can be read: {error}") from error
        return weights
    checkpoint = load(file, mmap=True)
    wrong = wrong_in(checkpoint, {"state_dict": dict})
    if wrong is not None:
        raise InputError(f"{file} holds no weights of a run ({wrong}): give one of its checkpoints")
    return checkpoint["state_dict"]
