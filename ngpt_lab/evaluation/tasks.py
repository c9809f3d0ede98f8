"""The tasks of lm-evaluation-harness that are asked for, by name or in files of the user's."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ngpt_lab.errors import InputError
from ngpt_lab.files import reading
from ngpt_lab.interop.weight_files import first_line

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Loaded:
    """Tasks with their data.

    Args:
        tasks: what the harness's evaluation takes.
        files: SHA-256 of the user's own files among those that were asked for.
        manager: the harness's, which found them.
    """

    tasks: list[Any]
    files: dict[str, str]
    manager: Any = field(repr=False)


class _Loader(yaml.SafeLoader):
    """Reads task files without carrying out the functions that they name."""


_Loader.add_constructor("!function", lambda _loader, node: str(node.value))


def load_tasks(names: Sequence[str], include: Path | None = None) -> Loaded:
    """The tasks called so, patterns such as `arc_*` and paths of task files among them, with their data.

    Args:
        names: of tasks, groups or tags.
        include: a folder of task files, or one such file, whose names can be asked for too.

    Raises:
        InputError: a name that nothing has, a file that is none, or data that cannot be had.
    """
    from lm_eval.tasks import TaskManager

    own = task_files(include) if include is not None else {}
    for name in names:
        if name.endswith(SUFFIXES):
            own[name] = task_file(Path(name))
    # Looking through the harness's own tasks, some fourteen thousand files, takes longer than a small task.
    folder = include if include is not None and include.is_dir() else None
    manager = TaskManager(include_path=folder, include_defaults=not set(names) <= own.keys())
    specs = {name: str(own[name]) for name in names if name in own}
    specs |= {task: task for name in names if name not in own for task in matched(manager, name)}
    tasks = [task for name, spec in specs.items() for task in loaded(manager, name, spec)]
    asked = {name: hashlib.sha256(own[name].read_bytes()).hexdigest() for name in names if name in own}
    return Loaded(tasks, asked, manager)


def task_files(include: Path) -> dict[str, Path]:
    """The files of a folder, or the one file, by the names of their tasks.

    Raises:
        InputError: there is none, or it is not YAML.
    """
    if include.is_file():
        return {str(content(include).get("task")): task_file(include)}
    if not include.is_dir():
        raise InputError(f"there is no task file or folder of task files {include}")
    read = {file: content(file) for file in sorted(include.rglob("*.yaml"))}
    return {task: file for file, described in read.items() if isinstance(task := described.get("task"), str)}


def task_file(file: Path) -> Path:
    """A file that describes a task.

    Raises:
        InputError: it does not.
    """
    if not isinstance(content(file).get("task"), str):
        raise InputError(f"{file} describes no task: lm-evaluation-harness wants its name under `task`")
    return file


def content(file: Path) -> dict[str, Any]:
    """What a task file says.

    Raises:
        InputError: it cannot be read, or is not YAML.
    """
    with reading(file):
        text = file.read_bytes()
    try:
        described = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{file} is not a YAML file: {first_line(error)}") from error
    if not isinstance(described, dict):
        raise InputError(f"{file} is not a task file: it holds no keys")
    return described


def matched(manager: Any, name: str) -> list[str]:
    """What the harness knows under a name or pattern.

    Raises:
        InputError: nothing is called so.
    """
    names: list[str] = manager.match_tasks([name])
    if not names:
        close = difflib.get_close_matches(name, manager.all_tasks, n=3)
        told = f": did you mean {' or '.join(close)}" if close else ": `lm-eval ls tasks` lists them"
        raise InputError(f"lm-evaluation-harness has no task {name!r}, and no file that was given describes one{told}")
    return names


def loaded(manager: Any, name: str, spec: str) -> list[Any]:
    """A task, a group of tasks, or the tasks of a tag, with their data.

    Raises:
        InputError: its data cannot be had, or the harness cannot make a task of it.
    """
    try:
        made = manager.load([spec])
    except OSError as error:
        # Of the network, the hub or the disk; it names the dataset.
        raise InputError(f"the data of task {name} cannot be had: {first_line(error)}") from error
    except Exception as error:
        raise InputError(f"task {name} cannot be set up: {type(error).__name__}: {first_line(error)}") from error
    groups = made.get("groups") or {}
    return [groups[name]] if name in groups else list(made["tasks"].values())
