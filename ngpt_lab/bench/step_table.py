"""The figures of `bench step` as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ngpt_lab.bench.arm import PARTS

MIB = 2**20


def tables(cost: Mapping[str, Any]) -> list[Table]:
    """What is compared, what it took, and where it went."""
    shown = [times(cost), parts(cost)]
    if any("kernels" in arm for arm in cost["arms"].values()):
        shown.append(kernels(cost))
    return shown


def times(cost: Mapping[str, Any]) -> Table:
    """Seconds, rates and ratios."""
    title = f"{cost['unit']}, {cost['threads']} thread(s), {cost['rounds']} interleaved rounds, {cost['device']['name']}"
    rows = [
        (
            name,
            f"{arm['parameters']:,}",
            f"{arm['tokens_per_step']:,}",
            f"{arm['first_loss']:.4f}",
            mode(arm),
            f"{arm['median']:.4f} [{min(arm['seconds']):.4f}..{max(arm['seconds']):.4f}]",
            f"{arm['tokens_per_second']:,.0f}",
            told(cost["ratios"].get(name)),
        )
        for name, arm in cost["arms"].items()
    ]
    seconds = "median [min..max]"
    names = ("arm", "parameters", "tokens", "first loss", "mode", seconds, "tokens/s", f"ratio to {cost['baseline']}")
    shown = table(title, names, rows)
    shown.caption = "; ".join(f"without {name}: {why}" for name, why in cost["left_out"].items()) or None
    return shown


def parts(cost: Mapping[str, Any]) -> Table:
    """Where an arm's time and memory go, and how near it is to its floor."""
    rows = [
        (
            name,
            f"{arm['first_step_seconds']:.1f}",
            *(f"{arm['parts'][part]:.4f}" for part in PARTS),
            f"{arm['saved_for_backward_bytes'] / MIB:,.1f}",
            f"{arm['peak_bytes'] / MIB:,.0f}",
            *of_floor(arm),
        )
        for name, arm in cost["arms"].items()
    ]
    title = "the first step compiles, in wall time; medians of each part; MiB that a micro-batch's forward pass keeps"
    floors = ("kept MiB", "peak MiB", "MFU", "floor", "of floor")
    shown = table(title, ("arm", "first step", *PARTS, *floors), rows)
    shown.caption = peaks(cost)
    return shown


def of_floor(arm: Mapping[str, Any]) -> tuple[str, str, str]:
    """An arm's utilization, its floor and the share of it, where they are known."""
    if "floor" not in arm:
        return "-", "-", "-"
    return f"{arm['mfu']:.1%}", f"{arm['floor']['seconds']:.4f}", f"{arm['floor']['share']:.1%}"


def peaks(cost: Mapping[str, Any]) -> str | None:
    """What the floor was computed with."""
    if "hardware" not in cost:
        return None
    hardware = cost["hardware"]
    used = sorted({arm["precision"] for arm in cost["arms"].values()})
    rates = ", ".join(f"{hardware['flops'][name] / 1e12:.3g} TFLOP/s in {name}" for name in used)
    return f"floor: {hardware['name']}, {rates}, {hardware['bandwidth'] / 1e9:.3g} GB/s; MFU: of these products' rate"


def kernels(cost: Mapping[str, Any]) -> Table:
    """Shares of a profiled step by kind of kernel."""
    kinds = list(next(iter(cost["arms"].values()))["kernels"])
    rows = [(name, *(f"{arm['kernels'][kind]:.1%}" for kind in kinds)) for name, arm in cost["arms"].items()]
    return table("share of one profiled step by kind of kernel", ("arm", *kinds), rows)


def mode(arm: Mapping[str, Any]) -> str:
    """How an arm's step is computed."""
    return f"{arm['precision']}, {'compiled' if arm['compiled'] else 'eager'}, {arm['attention']}"


def told(ratio: Mapping[str, Any] | None) -> str:
    """A ratio with its range and half-width; the baseline's own is 1."""
    if ratio is None:
        return "1"
    return f"{ratio['median']:.3f} [{ratio['low']:.3f}..{ratio['high']:.3f}] +- {ratio['half_width']:.3f}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of strings."""
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*row)
    return shown
