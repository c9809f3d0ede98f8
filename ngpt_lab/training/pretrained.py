"""A run that begins with the backbone of another one, trained or imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoint_form import check_weights
from ngpt_lab.training.checkpoints import FOLDER, LAST, load
from ngpt_lab.training.composition import config_files, read_mapping
from ngpt_lab.training.module import BackboneModule

KEY = "pretrained"
CONFIG = "config.yaml"
LENGTHS = "normalize_weights"
OF_THE_BACKBONE = "backbone."
OF_THE_HEAD = "lm_head."


def with_backbone(arguments: Sequence[str]) -> list[str]:
    """The arguments of `fit` with the pretrained backbone's own settings as a last config file, where there is one.

    How its matrices are kept at their lengths is one of them. What is set on the command line comes after. A config file that
    names both a pretrained run and the backbone is the record of a run, and holds all there is to know of it.

    Raises:
        InputError: the pretrained run is not there, or its config names no backbone.
    """
    path = asked_for(arguments)
    if path is None:
        return list(arguments)
    file = run_files(path)[0]
    config = read_mapping(file)
    section = backbone_section(config)
    if section is None:
        raise InputError(f"{file} names no backbone: give the folder of a run, or of an import")
    lengths = {key: value for key, value in config.items() if key == LENGTHS}
    text = yaml.safe_dump({"model": {"init_args": {"backbone": section}}, **lengths}, sort_keys=False)
    at = after_configs(arguments)
    return [*arguments[:at], "-c", text, *arguments[at:]]


def asked_for(arguments: Sequence[str]) -> str | None:
    """The pretrained run whose backbone's settings are needed; None where there is none, or a record has them."""
    named = None
    for at, argument in enumerate(arguments):
        if argument.startswith(f"--{KEY}="):
            named = argument.split("=", 1)[1]
        elif argument == f"--{KEY}" and at + 1 < len(arguments):
            named = arguments[at + 1]
    if named is not None:
        return None if named in ("", "null") else named
    trees = [tree for tree in map(read_mapping, config_files(arguments)) if KEY in tree]
    if not trees or trees[-1][KEY] is None or backbone_section(trees[-1]) is not None:
        return None
    return str(trees[-1][KEY])


def after_configs(arguments: Sequence[str]) -> int:
    """Where the last config file's argument ends; after the subcommand where there is none."""
    end = 1
    for at, argument in enumerate(arguments):
        if argument in ("-c", "--config"):
            end = at + 2
        elif argument.startswith(("-c=", "--config=")):
            end = at + 1
    return end


def backbone_section(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a config says of the backbone, where it names its class."""
    section: Any = config
    for key in ("model", "init_args", "backbone"):
        section = section.get(key) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) and "class_path" in section else None


def run_files(path: str) -> tuple[Path, Path]:
    """The config and the checkpoint that `--pretrained` names: of a run's folder, or a checkpoint in one.

    Raises:
        InputError: one of them is not there.
    """
    named = Path(path)
    if not named.exists():
        raise InputError(f"--{KEY}: there is no run folder or checkpoint {named}")
    checkpoint = named / FOLDER / LAST if named.is_dir() else named
    folders = [named] if named.is_dir() else list(named.absolute().parents[:2])
    config = next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)
    if config is None:
        raise InputError(f"--{KEY}: {named} has no {CONFIG}: give the folder of a run or of an import, or a checkpoint in one")
    if not checkpoint.is_file():
        raise InputError(f"--{KEY}: {named} has no {checkpoint.relative_to(named)}: give a run that was trained or imported")
    return config, checkpoint


def load_backbone(module: BackboneModule, path: str) -> None:
    """Give the backbone of `module` the weights of a pretrained run's, each in the module's own dtype; nothing else changes.

    A language model's head is left out where the module has another in its place.

    Raises:
        InputError: the run is not there or broken, or its weights are not those of the backbone; all that do not fit are named.
    """
    file = run_files(path)[1]
    checkpoint = load(file, mmap=True)
    check_weights(checkpoint, file)
    backbone = module.backbone
    given = {
        name.removeprefix(OF_THE_BACKBONE): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(OF_THE_BACKBONE)
    }
    if backbone.lm_head is None:
        given = {name: tensor for name, tensor in given.items() if not name.startswith(OF_THE_HEAD)}
    faults = differences(given, backbone.state_dict())
    if faults:
        raise InputError(f"--{KEY}: the weights in {file} do not fit the backbone: {'; '.join(faults)}")
    backbone.load_state_dict(given)


def differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Every weight that is missing, left over or of another shape."""
    faults = [f"{name} is missing" for name in wanted if name not in given]
    for name, tensor in given.items():
        if name not in wanted:
            faults.append(f"{name} has no place")
        elif tensor.shape != wanted[name].shape:
            faults.append(f"{name} is {list(tensor.shape)}, not {list(wanted[name].shape)}")
    return faults
