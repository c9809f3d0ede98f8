"""`ngpt-lab bench scale`."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

STRATEGIES = ("ddp", "fsdp2", "tp", "fsdp2+tp")


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench scale`.

    Raises:
        InputError: bad input.
    """
    options, rest = parser().parse_known_args(arguments)
    for name, least in (("rounds", 2), ("steps", 1)):  # one round has no spread
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}: it must be at least {least}")
    if min(options.processes) < 1:
        raise InputError(f"--processes {min(options.processes)}: give numbers of at least 1")
    from ngpt_lab.bench.scale import divisions, measure  # loads torch: not needed to tell usage

    divided = divisions(options.strategies, options.processes)
    cost = measure(rest, divided, options.rounds, options.steps, options.weak)
    if options.json:
        write_atomically(options.json, json.dumps(cost, indent=1) + "\n")
    Console(width=140).print(table(cost))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench scale",
        description="Measure how a run's speed grows with its processes, each measurement a run of its own.",
        epilog="The other arguments are those of fit.",
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="counts to measure, beside one (1 2 4)")
    parser.add_argument(
        "--strategies", nargs="+", choices=STRATEGIES, default=["ddp"], help=f"any of {', '.join(STRATEGIES)} (ddp)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--steps", type=int, default=20, help="steps that count, after as many that warm up (20)")
    parser.add_argument(
        "--weak",
        action="store_true",
        help="give each group of processes a batch as large as one process has, not a share of it",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def table(cost: dict[str, Any]) -> Table:
    """The figures as a table."""
    shown = Table(title=f"{cost['scaling']} scaling, {cost['rounds']} interleaved rounds of {cost['steps']} steps")
    for column in ("strategy", "processes", "batch", "tokens/s", "min", "max", "efficiency"):
        shown.add_column(column)
    for row in cost["rows"].values():
        of_one = row["efficiency"]
        spread = f"{of_one['median']:.3f} [{of_one['low']:.3f}..{of_one['high']:.3f}] +- {of_one['half_width']:.3f}"
        speeds = [f"{speed:,.0f}" for speed in (row["median"], min(row["tokens_per_second"]), max(row["tokens_per_second"]))]
        told = spread if row["processes"] > 1 else "1"
        shown.add_row(row["strategy"], str(row["processes"]), str(row["batch_size"]), *speeds, told)
    return shown
