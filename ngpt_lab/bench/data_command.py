"""`ngpt-lab bench data`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench data`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    for name in ("rounds", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: it must be at least 1")
    from ngpt_lab.bench.loading import measure_loading  # load torch: not needed to tell usage
    from ngpt_lab.bench.tokenizing import measure_tokenizing
    from ngpt_lab.data import StandardLibrary

    measured = {
        "loading": measure_loading(options.rounds, options.set),
        "tokenizing": measure_tokenizing(StandardLibrary(), options.rounds, options.processes, options.vocab_size),
    }
    if options.json:
        write_atomically(options.json, json.dumps(measured, indent=1) + "\n")
    Console(width=140).print(table(measured))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench data",
        description="Measure the loader against a step of the 1m model, and tokenizing against datasets.map, in turns.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each pair (5)")
    parser.add_argument("--processes", type=int, default=2, help="processes that tokenize, on both sides (2)")
    parser.add_argument("--vocab_size", type=int, default=4096, help="of the byte pairs (4096)")
    parser.add_argument("--set", action="append", default=[], metavar="--key=value", help="a setting of fit for the loader")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """The figures as a table."""
    shown = Table()
    for column in ("pair", "ours", "against", "ratio, median", "range", "rounds"):
        shown.add_column(column)
    for name, pair in measured.items():
        rates = [f"{pair[side]['what']}: {pair[side]['median']:,.4g} {pair['unit']}" for side in ("ours", "against")]
        ratio = pair["ratio"]
        span = f"{ratio['low']:.3g} to {ratio['high']:.3g}"
        shown.add_row(name, *rates, f"{ratio['median']:.3g}", span, str(len(ratio["per_round"])))
    return shown
