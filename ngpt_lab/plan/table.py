"""A plan as tables."""

from rich.table import Table

from ngpt_lab.analysis.wording import duration
from ngpt_lab.plan.plan import Plan

# Above this share of the memory a run may still fail: allocators leave gaps, and drivers need some for themselves.
TIGHT = 0.9


def tables(told: Plan) -> list[Table]:
    """What the command prints."""
    return [_model(told), _memory(told), _time(told)]


def verdict(told: Plan) -> str:
    """Whether the run fits its hardware."""
    if told.needed is None:
        return f"whether it fits is not known: nobody said how much memory {told.hardware.name} has"
    share = f"{told.needed:.0%} of {size(told.hardware.memory or 0)}"
    if told.needed > 1:
        return f"does not fit: needs {share}"
    return f"fits: needs {share}" if told.needed <= TIGHT else f"fits barely, or not: needs {share}"


def size(count: float) -> str:
    """Bytes as a reader likes them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at == 1 else "left")
    return table


def _model(told: Plan) -> Table:
    total = sum(told.parameters.values())
    table = _table(f"{told.model}: {total:,} parameters", "part", "parameters", "share")
    for part, count in told.parameters.items():
        table.add_row(part, f"{count:,}", f"{count / total:.1%}")
    return table


def _memory(told: Plan) -> Table:
    divided, held = told.layout, told.memory
    processes = f"{divided.data} x {divided.tensor}" if divided.tensor > 1 else f"{divided.data}"
    windows, length = told.micro_batch
    mode = "compiled" if told.compiled else "eager"
    title = f"Memory of each process: {divided.strategy}, {processes} process(es), {told.precision}, {mode}"
    table = _table(f"{title}, {windows} x {length} tokens at once", "what", "bytes", "")
    rows = [
        ("weights", held.weights, ""),
        ("gradients", held.gradients, ""),
        ("optimizer state", held.optimizer, ""),
        ("gathered", held.gathered, "whole weights and gradients of the parts at work, a block's of them in flat buffers too"),
        ("buckets", held.buckets, "the gradients' copy that is sent"),
        *((f"activations: {part}", count, "") for part, count in held.activations.items()),
        ("work", held.work, f"for a while, at the fullest moment{' of an eager step' if told.compiled else ''}"),
    ]
    for name, count, note in rows:
        if count:
            table.add_row(name, size(count), note)
    table.add_row("together", size(held.total), verdict(told))
    for name, count in told.activations.items():
        table.add_row(f"activations if {name}", size(count), "")
    return table


def _time(told: Plan) -> Table:
    (low, high), (slow, fast) = told.step_seconds, told.efficiency
    reckoned = f"at {slow:.0%} to {fast:.0%} of the floor's speed"
    table = _table(f"Time on {told.layout.processes} x {told.hardware.name}", "what", "figure", "")
    table.add_row("tokens", f"{told.tokens:,}", f"{told.steps:,} steps of {told.tokens_per_step:,}")
    table.add_row("operations", f"{told.flops:.4g}", f"{told.flops_per_token:.4g} a token; evaluations left out")
    parts = f"products {told.floor.matmul_seconds:.3g} s, bytes {told.floor.bytes_seconds:.3g} s"
    table.add_row("floor of a step", f"{told.floor.seconds:.3g} s", parts)
    if told.sent:
        table.add_row("sent in a step", size(told.sent), "by each process; its time is not in the estimate")
    table.add_row("a step", f"{low:.3g} to {high:.3g} s", reckoned)
    table.add_row("the run", f"{duration(low * told.steps)} to {duration(high * told.steps)}", reckoned)
    return table
