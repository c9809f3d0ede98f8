"""`ngpt-lab bench memory`."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench memory`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    if min(options.megabytes) < 1:
        raise InputError(f"--megabytes is {min(options.megabytes)}: it must be at least 1")
    if options.processes < 1:
        raise InputError(f"--processes is {options.processes}: it must be at least 1")
    from ngpt_lab.bench.memory import measure_memory  # loads torch: not needed to tell usage

    measured = measure_memory(options.megabytes, options.processes, options.into)
    if options.json:
        write_atomically(options.json, json.dumps(measured, indent=1) + "\n")
    shown = Table(title="peak anonymous memory (RssAnon) of all processes")
    for column in ("store", "while tokenizing", "while reading", "tokenizing, to the first", "reading, to the first"):
        shown.add_column(column)
    for row in measured:
        ratios = [f"{row[what] / measured[0][what]:.3f}" for what in ("tokenizing", "reading")]
        sizes = [f"{row[what] / 1e6:,.0f} MB" for what in ("store", "tokenizing", "reading")]
        shown.add_row(*sizes, *ratios)
    Console(width=140).print(shown)


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench memory",
        description="Measure the memory that it takes to tokenize made texts of several sizes, and to read them in training.",
    )
    parser.add_argument(
        "--megabytes", type=int, nargs="+", default=[512, 2048], help="of text; a byte takes two in the store (512 2048)"
    )
    parser.add_argument("--processes", type=int, default=2, help="processes that tokenize (2)")
    parser.add_argument("--into", type=Path, help="folder for the texts and stores, which are removed (a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser
