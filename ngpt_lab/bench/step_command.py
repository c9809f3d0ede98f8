"""`ngpt-lab bench step`."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.training.arms import DEFAULT_BASELINE, arm_arguments, default_arms, parse_arms


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench step`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    from ngpt_lab.bench.step import measure  # loads torch: not needed to tell usage

    arms = parse_arms(options.arm) if options.arm else default_arms()
    baseline = options.baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in arms else list(arms)[-1])
    if baseline not in arms:
        raise InputError(f"--baseline {baseline} is not among the arms {', '.join(arms)}")
    args = {name: [*arm_arguments(files), *options.set] for name, files in arms.items()}
    cost = measure(args, baseline, options.rounds, options.warmup, options.compile, options.threads)
    if options.json:
        write_atomically(options.json, json.dumps(cost, indent=1) + "\n")
    Console(width=140).print(table(cost))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench step",
        description="Measure what a training step costs: forward, backward, clip, optimizer, projection.",
    )
    parser.add_argument(
        "--arm", action="append", metavar="NAME=A.yaml,B.yaml", help="an arm and its config files, on base.yaml"
    )
    parser.add_argument("--baseline", metavar="NAME", help="the arm the others are divided by")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--warmup", type=int, default=3, help="rounds that come first (3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--compile", action="store_true", help="compile every backbone, asked for in its config or not")
    parser.add_argument("--set", action="append", default=[], metavar="--key=value", help="a setting of fit, for every arm")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def table(cost: dict) -> Table:  # type: ignore[type-arg]
    """The figures as a table."""
    title = f"{cost['unit']}, {cost['threads']} thread(s), {cost['rounds']} interleaved rounds, {cost['device']['name']}"
    shown = Table(title=title)
    figures = ("median", "min", "max", "tokens/s", f"ratio to {cost['baseline']}")
    for column in ("arm", "parameters", "precision", "mode", *figures):
        shown.add_column(column)
    for name, arm in cost["arms"].items():
        ratio = cost["ratios"].get(name)
        told = f"{ratio['median']:.3f} [{ratio['low']:.3f}..{ratio['high']:.3f}] +- {ratio['half_width']:.3f}" if ratio else "1"
        times = [f"{value:.4f}" for value in (arm["median"], min(arm["seconds"]), max(arm["seconds"]))]
        mode = "compiled" if arm["compiled"] else "eager"
        speed = f"{arm['tokens_per_second']:,.0f}"
        shown.add_row(name, f"{arm['parameters']:,}", arm["precision"], mode, *times, speed, told)
    return shown
