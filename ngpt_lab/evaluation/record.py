"""Results beside the run that they are of."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ngpt_lab.files import write_atomically
from ngpt_lab.training.checkpoints import NAME
from ngpt_lab.training.resume import recorded
from ngpt_lab.training.run_weights import find_weights

FOLDER = "eval"
PACKAGES = ("ngpt-lab", "torch", "lm-eval", "transformers")
LONGEST_NAME = 80


def checkpoint(path: Path, folder: Path) -> dict[str, Any]:
    """Which weights were evaluated: file and step, None where no step is known."""
    file = find_weights(path)[1]
    return {"run": folder.resolve().name, "file": file.name, "step": step_of(file, folder)}


def step_of(file: Path, folder: Path) -> int | None:
    """After how many steps a file of a run was written."""
    if named := NAME.fullmatch(file.name):
        return int(named[1])
    if file.suffix == ".safetensors":
        return recorded(folder).get("steps")
    # Its tensors stay where they are.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("global_step")


def write(folder: Path, names: Sequence[str], record: Mapping[str, Any], copy: Path | None = None) -> Path:
    """Write results into the run's folder, under a name that no other weights, settings or versions have.

    Args:
        folder: the run's.
        names: what was evaluated, for the file's name.
        record: checkpoint, settings and results.
        copy: a second file to write.
    """
    versions = {"python": platform.python_version()} | {name: of for name in PACKAGES if (of := installed(name))}
    told = {**record, "versions": versions}
    same = json.dumps({name: told[name] for name in ("checkpoint", "settings", "versions")}, sort_keys=True)
    step, file = told["checkpoint"]["step"], Path(told["checkpoint"]["file"])
    which = file.stem if step is None else f"step-{step:06d}"
    name = re.sub(r"[^\w.+-]+", "_", "+".join(names))[:LONGEST_NAME]
    target = folder / FOLDER / f"{name}-{which}-{hashlib.sha256(same.encode()).hexdigest()[:8]}.json"
    text = json.dumps({"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **told}, indent=1, allow_nan=False) + "\n"
    for path in filter(None, (target, copy)):
        write_atomically(path, text)
    return target


def installed(name: str) -> str | None:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
