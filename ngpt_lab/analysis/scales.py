"""Every learned scale, over training or now: each entry, or what can be said of all entries of a layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from ngpt_lab.models import Decoder

COLUMNS = {"scale": "str", "layer": "int64", "channel": "int64", "value": "float64"}
NO_LAYER = -1
_FILE = re.compile(r"step-(\d+)\.safetensors")


def scale_history(folder: str | Path) -> pd.DataFrame:
    """Every entry of every scale at each step that a run wrote them: step, scale, layer, channel, value.

    Values are those of `Scale` itself, so an alpha may be negative where the forward pass takes its magnitude. A scale without
    layers, s_z, has layer -1. A run without scales, or one that wrote none, gives no rows.

    Raises:
        InputError: no such run, or a file of scales that cannot be read.
    """
    run = Path(folder)
    if not (run / "run.json").is_file() and not (run / "scales").is_dir():
        raise InputError(f"{run} is not a run's folder: it has neither run.json nor scales")
    found = {int(name[1]): file for file in (run / "scales").glob("step-*") if (name := _FILE.fullmatch(file.name))}
    frames = [_tidy(_read(found[step])).assign(step=step) for step in sorted(found)]
    history = pd.concat(frames, ignore_index=True) if frames else _tidy({}).assign(step=0)
    return history[["step", *COLUMNS]]


def scales_of(decoder: Decoder) -> pd.DataFrame:
    """Every entry of every scale of a decoder, as `scale_history` has them: scale, layer, channel, value."""
    from ngpt_lab.training.telemetry import named_scales  # slow to import

    return _tidy({name: value.float().cpu().numpy() for name, value in named_scales(decoder)})


def scale_summary(history: pd.DataFrame) -> pd.DataFrame:
    """A history's spread over the channels: step, scale, layer, mean, mean_abs, std, negative (a share), q05, q50, q95."""
    groups = history.assign(mean_abs=history["value"].abs(), negative=history["value"] < 0).groupby(["step", "scale", "layer"])
    value = groups["value"]
    summary = {
        "mean": value.mean(),
        "mean_abs": groups["mean_abs"].mean(),
        "std": value.std(ddof=0),  # of what is there: zero for a single number
        "negative": groups["negative"].mean(),
    }
    return pd.DataFrame(summary | {f"q{100 * q:02.0f}": value.quantile(q) for q in (0.05, 0.5, 0.95)}).reset_index()


def _read(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a file of scales that can be read ({error}): remove it, or repeat the run") from error


def _tidy(scales: Mapping[str, Any]) -> pd.DataFrame:
    frames = []
    for name, value in scales.items():
        scale, _, layer = name.partition("/")
        channel = np.arange(len(value))
        frames.append(pd.DataFrame({"scale": scale, "layer": int(layer or NO_LAYER), "channel": channel, "value": value}))
    tidy = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    return tidy.astype(COLUMNS)
