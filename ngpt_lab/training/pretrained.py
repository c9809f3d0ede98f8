"""A run that begins with the backbone of another one, trained or imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import step_files
from ngpt_lab.training.composition import config_files, read_mapping
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.parallel.birth import fill
from ngpt_lab.training.run_folders import OF_THE_FOLDER
from ngpt_lab.training.run_weights import CONFIG, find_weights, read_weights

KEY = "pretrained"
LENGTHS = "normalize_weights"
OF_THE_BACKBONE = "backbone."
OF_THE_HEAD = "lm_head."


def with_backbone(arguments: Sequence[str]) -> list[str]:
    """The arguments of `fit` with the pretrained backbone's own settings as a last config file, where there is one.

    How its matrices are kept at their lengths is one of them. What is set on the command line comes after. A run that goes on
    has them in its own config, and needs the pretrained one no more. A config file that names both a pretrained run and the
    backbone is the record of a run, and holds all there is to know of it.

    Raises:
        InputError: the pretrained run is not there, or its config names no backbone.
    """
    path = asked_for(arguments)
    if path is None:
        return list(arguments)
    folder = continued(arguments) or find_pretrained(path)[0]
    config = read_mapping(folder / CONFIG)
    section = backbone_section(config)
    if section is None:
        raise InputError(f"{folder / CONFIG} names no backbone: give the folder of a run, or of an import")
    lengths = {key: value for key, value in config.items() if key == LENGTHS}
    text = yaml.safe_dump({"model": {"init_args": {"backbone": section}}, **lengths}, sort_keys=False)
    at = after_configs(arguments)
    return [*arguments[:at], "-c", text, *arguments[at:]]


def asked_for(arguments: Sequence[str]) -> str | None:
    """The pretrained run whose backbone's settings are needed; None where there is none, or a record has them.

    Raises:
        InputError: it is named by nothing.
    """
    named = said(arguments, KEY)
    if named == "":
        raise InputError(f"--{KEY} is empty: name a run's folder or a checkpoint in one, or leave it out")
    trees = [tree for tree in map(read_mapping, config_files(arguments)) if KEY in tree]
    of_a_record = bool(trees) and trees[-1][KEY] == named and backbone_section(trees[-1]) is not None
    return None if named is None or of_a_record else named


def continued(arguments: Sequence[str]) -> Path | None:
    """The folder of the run that is gone on with in it, if there is one and it has a config."""
    named, asked = said(arguments, "trainer.default_root_dir"), said(arguments, "ckpt_path")
    if named is None or asked is None:
        return None
    folder = Path(named)
    own = asked in OF_THE_FOLDER or folder.absolute() in Path(asked).absolute().parents
    return folder if own and step_files(folder) and (folder / CONFIG).is_file() else None


def said(arguments: Sequence[str], key: str) -> str | None:
    """What a key is set to, on the command line or else in the last config file that sets it; None also where it is null."""
    named: Any = None
    for tree in map(read_mapping, config_files(arguments)):
        named = value_at(tree, key.split("."), named)
    for at, argument in enumerate(arguments):
        if argument.startswith(f"--{key}="):
            named = argument.split("=", 1)[1]
        elif argument == f"--{key}" and at + 1 < len(arguments):
            named = arguments[at + 1]
    return None if named in (None, "null") else str(named)


def value_at(tree: Any, keys: Sequence[str], otherwise: Any = None) -> Any:
    """What nested mappings hold under a path of keys."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return otherwise
        tree = tree[key]
    return tree


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
    section = value_at(config, ("model", "init_args", "backbone"))
    return section if isinstance(section, Mapping) and "class_path" in section else None


def find_pretrained(path: str) -> tuple[Path, Path]:
    """The folder and the weights that `--pretrained` names.

    Raises:
        InputError: one of them is not there.
    """
    try:
        return find_weights(Path(path).expanduser())
    except InputError as error:
        raise InputError(f"--{KEY}: {error}") from error


def load_backbone(module: BackboneModule, path: str) -> None:
    """Give the backbone of `module` the weights of a pretrained run's, each in the module's own dtype; nothing else changes.

    A language model's head is left out where the module has another in its place.

    Raises:
        InputError: the run is not there or broken, or its weights are not those of the backbone; all that do not fit are named.
    """
    file = find_pretrained(path)[1]
    of_the_backbone = "" if file.suffix == ".safetensors" else OF_THE_BACKBONE
    backbone = module.backbone
    given = {
        name.removeprefix(of_the_backbone): tensor
        for name, tensor in read_weights(file).items()
        if name.startswith(of_the_backbone)
    }
    if backbone.lm_head is None:
        given = {name: tensor for name, tensor in given.items() if not name.startswith(OF_THE_HEAD)}
    faults = differences(given, backbone.state_dict())
    if faults:
        raise InputError(f"--{KEY}: the weights in {file} do not fit the backbone: {'; '.join(faults)}")
    for name, tensor in backbone.state_dict().items():
        fill(tensor, given[name])


def differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Every weight that is missing, left over or of another shape."""
    faults = [f"{name} is missing" for name in wanted if name not in given]
    for name, tensor in given.items():
        if name not in wanted:
            faults.append(f"{name} has no place")
        elif tensor.shape != wanted[name].shape:
            faults.append(f"{name} is {list(tensor.shape)}, not {list(wanted[name].shape)}")
    return faults
