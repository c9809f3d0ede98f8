"""`ngpt-lab bench loss`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.bench.rounds import add_rounds, check_rounds
from ngpt_lab.files import write_atomically

MIB = 2**20


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench loss`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    check_rounds(options)
    from ngpt_lab.bench.loss import Work, measure_loss  # loads torch: not needed to tell usage
    from ngpt_lab.machine import usable

    work = Work(options.vocab_size, options.d_model, options.tokens, options.precision)
    measured = measure_loss(work, options.rounds, options.warmup, options.threads, usable(options.device))
    if options.json:
        write_atomically(options.json, json.dumps(measured, indent=1) + "\n")
    Console(width=140).print(table(measured))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench loss",
        description="Measure the loss over a vocabulary, forward and backward: from whole logits, in chunks, and torch's own.",
    )
    parser.add_argument("--vocab_size", type=int, default=32000, metavar="N", help="token ids (32000)")
    parser.add_argument("--d_model", type=int, default=512, metavar="N", help="channels of a feature (512)")
    parser.add_argument("--tokens", type=int, default=2048, metavar="N", help="how many there are (2048)")
    parser.add_argument("--precision", default="32-true", help="32-true, or bf16-mixed for products under autocast (32-true)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    add_rounds(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def table(measured: Mapping[str, Any]) -> Table:
    """The figures as a table."""
    work = measured["work"]
    shown = Table(
        title="{unit}, {threads} thread(s), {rounds} interleaved rounds".format(**measured)
        + ", {tokens} tokens, {vocab_size} ids, {d_model} channels, {precision}".format(**work),
        caption="memory beyond inputs and gradients; errors of loss and gradients relative to float64",
    )
    columns = ("loss", "median", "ratio to whole", "MiB", "of the logits", "error of loss", "of features", "of matrix")
    for column in columns:
        shown.add_column(column)
    for name, arm in measured["arms"].items():
        ratio = measured["ratios"].get(name)
        told = f"{ratio['median']:.3f} +- {ratio['half_width']:.3f}" if ratio else "1"
        wrong = [f"{error:.1e}" for error in arm["errors"].values()]
        shown.add_row(name, f"{arm['median']:.4f}", told, f"{arm['bytes'] / MIB:,.1f}", f"{arm['share_of_logits']:.3f}", *wrong)
    return shown
