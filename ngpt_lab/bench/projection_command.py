"""`ngpt-lab bench projection`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.bench.rounds import add_rounds, check_rounds
from ngpt_lab.files import write_atomically
from ngpt_lab.training.arms import arm_arguments, parse_arms, shipped


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench projection`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    check_rounds(options)
    from ngpt_lab.bench.projection import measure_projection  # loads torch: not needed to tell usage

    configs = shipped("configs")
    asked = options.arm or f"ngpt={configs}/model/ngpt.yaml,{configs}/size/30m.yaml"
    files = next(iter(parse_arms([asked]).values()))
    args = [*arm_arguments(files), *options.set]
    measured = measure_projection(args, options.rounds, options.warmup, options.threads, options.compile)
    if options.json:
        write_atomically(options.json, json.dumps(measured, indent=1) + "\n")
    Console(width=140).print(table(measured))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench projection",
        description="Measure what it costs to put all matrices back on the sphere, against the plain loop of norm, quotient "
        "and copy, and against the step that it ends.",
    )
    parser.add_argument("--arm", metavar="NAME=A.yaml,B.yaml", help="the model's config files, on base.yaml (ngpt, 30m)")
    parser.add_argument("--compile", action="store_true", help="compile the step that it is compared with")
    parser.add_argument("--set", action="append", default=[], metavar="--key=value", help="a setting of fit")
    add_rounds(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def table(measured: Mapping[str, Any]) -> Table:
    """The figures as a table."""
    told = "{unit}, {threads} thread(s), {rounds} interleaved rounds, {name}".format(
        **measured, name=measured["device"]["name"]
    )
    mode = "compiled" if measured["compiled"] else "eager"
    size = f"{measured['matrices']} matrices, {measured['entries']:,} entries; a step of {measured['tokens_per_step']:,} tokens"
    shown = Table(title=f"{told}\n{size}, {measured['precision']}, {mode}")
    for column in ("what", "median", "projection / this", "largest error of a length"):
        shown.add_column(column)
    for name, arm in measured["arms"].items():
        ratio = measured["ratios"].get(name)
        error = measured["error"].get(name)
        shown.add_row(
            name,
            f"{arm['median']:.5f}",
            f"{ratio['median']:.4f} +- {ratio['half_width']:.4f}" if ratio else "1",
            "-" if error is None else f"{error:.1e}",
        )
    return shown
