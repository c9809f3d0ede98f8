"""A decoder's arguments as a config holds them: parts by class path, functions by import path."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

from torch.nn import functional as F


def section(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The config section from which the command line builds `cls(**arguments)`."""
    return {"class_path": import_path(cls), "init_args": {name: value_of(value) for name, value in arguments.items()}}


def value_of(value: Any) -> Any:
    """An argument as a config holds it: a factory is its class with the settings that are bound, a function its path."""
    if isinstance(value, partial):
        return section(value.func, value.keywords)  # type: ignore[arg-type]
    if inspect.isclass(value):
        return section(value, {})
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return import_path(value) if callable(value) else value


def import_path(thing: Any) -> str:
    """Where a class or function can be imported from; its package, where that offers it, and its module else."""
    # Of those of torch that are compiled, the module says where they are made.
    module = thing.__module__
    for offering in (F.__name__, module.rpartition(".")[0]):
        if getattr(sys.modules.get(offering), thing.__name__, None) is thing:
            module = offering
    return f"{module}.{thing.__qualname__}"
