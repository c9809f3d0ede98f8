"""`ngpt-lab plan`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

if TYPE_CHECKING:
    from ngpt_lab.bench.floor import Hardware

MEASURED = "measured"


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab plan`.

    Raises:
        InputError: bad input.
    """
    options, rest = parser().parse_known_args(arguments)
    low, high = options.efficiency
    if not 0 < low <= high <= 1:
        raise InputError(f"--efficiency is {low:g} {high:g}: give the least and the most of the floor's speed, from 0 to 1")
    from ngpt_lab.plan.plan import as_json, plan  # loads torch: not needed to tell usage
    from ngpt_lab.plan.table import tables

    told = plan(rest, hardware(options.hardware), (low, high))
    if options.json:
        write_atomically(options.json, json.dumps(as_json(told), indent=1) + "\n")
    for table in tables(told):
        Console(width=140).print(table, "")


def parser() -> OptionParser:
    """The command's own options."""
    parser = OptionParser(
        prog="ngpt-lab plan",
        description="Tell what a run will need before it runs: parameters, memory of each process, operations, time.",
        epilog="The other arguments are those of fit.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--hardware",
        default=MEASURED,
        metavar="NAME",
        help="what each process runs on, as h100; by default this machine, measured",
    )
    parser.add_argument(
        "--efficiency",
        nargs=2,
        type=float,
        default=(0.4, 0.85),
        metavar=("LOW", "HIGH"),
        help="of the floor's speed, for the range of time (0.4 0.85)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def hardware(name: str) -> "Hardware":
    """What the processes run on: named, or this machine's device.

    Raises:
        InputError: nobody wrote down its figures.
    """
    import torch

    from ngpt_lab.bench.floor import NAMED, measured

    if name in NAMED:
        return NAMED[name]
    if name != MEASURED:
        raise InputError(f"--hardware is {name!r}: choose {MEASURED} or one of {', '.join(NAMED)}")
    return measured(torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.get_num_threads())
