"""Which config files may stand side by side: two ablations never touch the same part or key."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ngpt_lab.errors import InputError


def config_files(args: Sequence[str]) -> list[Path]:
    """The config files that command line arguments name, in order."""
    files = []
    for at, argument in enumerate(args):
        if argument in ("-c", "--config") and at + 1 < len(args):
            files.append(Path(args[at + 1]))
        elif argument.startswith(("-c=", "--config=")):
            files.append(Path(argument.split("=", 1)[1]))
    return files


def touched(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """What a config file changes: the path of each value, or of a whole part where it names the part's class."""
    for key, value in tree.items():
        path = prefix if key == "init_args" else (*prefix, key)
        if isinstance(value, Mapping) and "class_path" not in value:
            yield from touched(value, path)
        else:
            yield path


def check_ablations(args: Sequence[str]) -> None:
    """Refuse a config file that holds no settings, and two of a folder `ablation` that touch the same part or key.

    Raises:
        InputError: names both files and what they share, or the file that cannot be read.
    """
    seen: list[tuple[Path, tuple[str, ...]]] = []
    for file in config_files(args):
        tree = read_mapping(file)
        if file.resolve().parent.name != "ablation":
            continue
        for path in touched(tree):
            for other, taken in seen:
                shared = min(len(path), len(taken))
                if other != file and path[:shared] == taken[:shared]:
                    key = ".".join(path if len(path) > len(taken) else taken).removeprefix("model.backbone.")
                    raise InputError(f"{other} and {file} both change {key}: use one of them")
            seen.append((file, path))


def read_mapping(file: Path) -> Mapping[str, Any]:
    """A YAML file's mapping.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not file.is_file():
        raise InputError(f"there is no config file {file}")
    try:
        tree = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = str(error).replace('in "<unicode string>", ', "at ")
        raise InputError(f"{file} is not YAML: {' '.join(told.split())}") from error
    if not isinstance(tree, Mapping):
        raise InputError(f"{file} holds no settings: a config file is a mapping of keys to values")
    return tree
