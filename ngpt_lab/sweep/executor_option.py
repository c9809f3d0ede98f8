"""`--executor`: an object, named by a short name, a class path or a file, whose settings are further words."""

import json
import os
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import yaml
from jsonargparse import ArgumentParser

from ngpt_lab.errors import InputError
from ngpt_lab.sweep.sites import Local, Site

OPTION = "--executor"
NAMES = {
    "local": "ngpt_lab.sweep.sites.Local",
    "slurm": "ngpt_lab.sweep.slurm.Slurm",
    "ray": "ngpt_lab.sweep.ray_tasks.Ray",
}


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words that are about the executor, and the others."""
    ours: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, _ = word.partition("=")
        if option != OPTION and not option.startswith(f"{OPTION}."):
            others.append(word)
        elif equals or (following := next(words, None)) is None:
            ours.append(word)
        else:
            ours.append(f"{option}={following}")
    return ours, others


def in_full(word: str) -> str:
    """The word that names the executor, with the class path for a short name, and for a file its content.

    Raises:
        InputError: there is no such file, or it describes no executor.
    """
    option, _, name = word.partition("=")
    if not name.endswith((".yaml", ".yml", ".json")):
        return f"{option}={NAMES.get(name, name)}"
    try:
        content = yaml.safe_load(Path(name).read_text())
    except OSError as error:
        raise InputError(f"{OPTION} {name}: there is no such file, or it cannot be read") from error
    except ValueError as error:
        raise InputError(f"{OPTION} {name} is no text: write it as YAML") from error
    except yaml.YAMLError as error:
        raise InputError(f"{OPTION} {name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("class_path"), str):
        raise InputError(f"{OPTION} {name} names no executor: write class_path: {' or '.join(NAMES)}")
    path = content["class_path"]
    return f"{option}={json.dumps({**content, 'class_path': NAMES.get(path, path)}, default=str)}"


def read_site(words: list[str]) -> Site:
    """The site that the words about the executor describe; this machine where there are none.

    Raises:
        InputError: there is no such executor, or it has no such setting.
    """
    if not words:
        return Local()
    named = [in_full(word) for word in words if word.partition("=")[0] == OPTION]
    if not named:
        raise InputError(f"{words[0].partition('=')[0]} is a setting of an executor: name that too, as {OPTION} slurm")
    settings = [word for word in words if word.startswith(f"{OPTION}.")]
    parser = Parser(prog="ngpt-lab sweep", exit_on_error=False)
    parser.add_argument(OPTION, type=Site)
    built: Site = parser.instantiate(parser.parse_args([*named, *settings])).executor
    return built


class Parser(ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the input.

        Raises:
            InputError: always.
        """
        from ngpt_lab.training.parser import one_sentence, told_by  # loads lightning

        raise told_by(ex) or InputError(f"{one_sentence(message)} ({OPTION} is one of {', '.join(NAMES)})") from ex
