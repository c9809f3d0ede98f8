"""`ngpt-lab bench generate`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.bench.rounds import check_rounds
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

if TYPE_CHECKING:
    from ngpt_lab.models import Dims

SIZES = {
    "vocab_size": (32000, "token ids"),
    "d_model": (512, "width of the stream"),
    "n_layers": (8, "blocks"),
    "n_heads": (8, "query heads"),
}
OTHERS = {
    "n_kv_heads": ("n_heads", "key and value heads"),
    "d_head": ("d_model / n_heads", "channels of a head"),
    "d_ff": ("4 d_model", "hidden channels"),
}


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench generate`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    check_rounds(options)
    import torch  # takes a while: not needed to tell usage

    from ngpt_lab.bench.generate import Work, measure
    from ngpt_lab.machine import usable

    measured = measure(
        dims(options),
        Work(options.batch, options.prompt, options.new),
        options.rounds,
        options.warmup,
        options.threads,
        getattr(torch, options.dtype),
        usable(options.device),
    )
    if options.json:
        write_atomically(options.json, json.dumps(measured, indent=1) + "\n")
    Console(width=140).print(table(measured))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench generate",
        description="Measure prefill and decode, greedy: nGPT and Nemotron of one shape, each in ngpt-lab's own loop and as "
        "the Hugging Face class with the same weights in transformers' generate.",
    )
    for name, (default, told) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{told} ({default})")
    for name, (rule, told) in OTHERS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{told} ({rule})")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="prompts side by side (1)")
    parser.add_argument("--prompt", type=int, default=256, metavar="N", help="tokens of a prompt (256)")
    parser.add_argument("--new", type=int, default=64, metavar="N", help="tokens decoded after the first new one (64)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count (10)")
    parser.add_argument("--warmup", type=int, default=2, help="rounds that come first (2)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights (float32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def dims(options: argparse.Namespace) -> "Dims":
    """The sizes that all arms have.

    Raises:
        InputError: they make no decoder.
    """
    from ngpt_lab.models import Dims

    n_heads = options.n_heads
    if options.d_head is None and n_heads and options.d_model % n_heads:
        raise InputError(f"--d_model ({options.d_model}) is not a multiple of --n_heads ({n_heads}): give a --d_head")
    d_head = options.d_model // max(n_heads, 1) if options.d_head is None else options.d_head
    n_kv_heads = n_heads if options.n_kv_heads is None else options.n_kv_heads
    d_ff = 4 * options.d_model if options.d_ff is None else options.d_ff
    return Dims(options.vocab_size, options.d_model, options.n_layers, n_heads, n_kv_heads, d_head, d_ff)


def table(measured: dict[str, Any]) -> Table:
    """The figures as a table."""
    title = "{unit}, {threads} thread(s), {rounds} interleaved rounds, {dtype}, {name}".format(
        **measured, name=measured["device"]["name"]
    )
    same = ", ".join(f"{model}: {'yes' if same else 'no'}" for model, same in measured["same_ids"].items())
    shown = Table(title=title, caption=f"hf-: transformers' generate; the same ids as our own loop? {same}")
    for column in ("phase", "arm", "median", "min", "max", "tokens/s", "ratio to hf-nemotron"):
        shown.add_column(column)
    for phase in ("prefill", "decode"):
        for name, arm in measured[phase]["arms"].items():
            ratio = measured[phase]["ratios"].get(name)
            span = (
                f"{ratio['median']:.3f} [{ratio['low']:.3f}..{ratio['high']:.3f}] +- {ratio['half_width']:.3f}"
                if ratio
                else "1"
            )
            times = [f"{value:.4f}" for value in (arm["median"], min(arm["seconds"]), max(arm["seconds"]))]
            shown.add_row(phase, name, *times, f"{arm['tokens_per_second']:,.0f}", span)
    return shown
