"""A drawing of `bench step`: the arms under the roof of the machine, and each arm's step beside its floor."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngpt_lab.analysis.figures.image import png, svg
from ngpt_lab.analysis.figures.style import COLOURS, LINES, arm_styles
from ngpt_lab.bench.arm import PARTS
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

KINDS: dict[str, Callable[[Figure], bytes]] = {".png": png, ".svg": svg}
SPAN = 30  # how far the intensities drawn reach, below the least and above the greatest


def drawable(path: Path) -> Path:
    """The path, if a drawing can be written there.

    Raises:
        InputError: its name says another kind of file.
    """
    if path.suffix not in KINDS:
        raise InputError(f"--plot {path}: end the name in {' or '.join(KINDS)}")
    return path


def draw(cost: Mapping[str, Any], path: Path) -> None:
    """Draw the figures of `measure`, which must have floors, to a `drawable` path."""
    figure = Figure(figsize=(12, 1.2 + max(4.0, 0.55 * len(cost["arms"]))), layout="constrained")
    roof, bars = figure.subplots(1, 2)
    draw_roof(roof, cost)
    draw_bars(bars, cost)
    write_atomically(path, KINDS[path.suffix](figure))


def draw_roof(axes: Axes, cost: Mapping[str, Any]) -> None:
    """Operations a second over operations a byte: a roof for each precision, and the arms under it.

    The roof is the floor's: products and unavoidable bytes one after the other, not the better of the two.
    """
    floors = {name: arm["floor"] for name, arm in cost["arms"].items()}
    intensities = {name: floor["flops"] / floor["bytes"] for name, floor in floors.items()}
    over = np.geomspace(min(intensities.values()) / SPAN, max(intensities.values()) * SPAN, 200)
    hardware = cost["hardware"]
    precisions = sorted({arm["precision"] for arm in cost["arms"].values()})
    for precision, line in zip(precisions, LINES, strict=False):
        roof = 1 / (1 / hardware["flops"][precision] + 1 / (over * hardware["bandwidth"]))
        axes.semilogx(over, roof / 1e12, color="0.35", linestyle=line, label=f"floor, {precision}")
    for name, style in arm_styles(list(floors)).items():
        speed = floors[name]["flops"] / floors[name]["seconds"] * floors[name]["share"]
        told = f"{name}, {floors[name]['share']:.0%} of its floor"
        axes.plot(intensities[name], speed / 1e12, style.marker, color=style.colour, linestyle="none", label=told)
    axes.set(xlabel="operations per unavoidable byte", ylabel="TFLOP/s", title=hardware["name"], ylim=(0, None))
    axes.legend(fontsize="small")


def draw_bars(axes: Axes, cost: Mapping[str, Any]) -> None:
    """Each arm's seconds by part, and its floor as a mark across them."""
    names = list(cost["arms"])
    threads = cost["threads"] if cost["device"]["kind"] == "cpu" else 1
    left = np.zeros(len(names))
    for part, colour in zip(PARTS, COLOURS, strict=False):
        seconds = np.array([arm["parts"][part] / threads for arm in cost["arms"].values()])
        axes.barh(names, seconds, left=left, label=part, color=colour)
        left += seconds
    marks = {"products at their peak": ("matmul_seconds", "dotted"), "floor: and the bytes": ("seconds", "solid")}
    for label, (key, line) in marks.items():
        for at, arm in enumerate(cost["arms"].values()):
            shown = label if at == 0 else None
            axes.plot([arm["floor"][key]] * 2, [at - 0.45, at + 0.45], color="black", linestyle=line, label=shown)
    axes.invert_yaxis()
    axes.set(xlabel="seconds a step", title=f"medians of {cost['rounds']} rounds")
    axes.legend(fontsize="small")
