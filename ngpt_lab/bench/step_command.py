"""`ngpt-lab bench step`."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ngpt_lab.arguments import OptionParser
from ngpt_lab.bench.rounds import add_rounds, check_rounds
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.training.arms import DEFAULT_BASELINE, arm_arguments, default_arms, parse_arms

if TYPE_CHECKING:
    import torch

    from ngpt_lab.bench.floor import Hardware

# What an --arm may begin with instead of a file: an implementation that is not ours, as library:variant.
IMPLEMENTATION = re.compile(r"[A-Za-z-]+:[a-z]+")


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench step`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    check_rounds(options)
    arms, others = asked_arms(options.arm, options.baseline)
    baseline = options.baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in arms else list(arms)[-1])
    compiled = compiled_arms(options.compile, arms)
    args = {name: [*arm_arguments(files), *settings_of(name, options.set, arms)] for name, files in arms.items()}
    from ngpt_lab.bench.roofline import draw, drawable  # these load torch: not needed to tell usage
    from ngpt_lab.bench.step import measure
    from ngpt_lab.bench.step_table import tables

    if options.plot:
        drawable(options.plot)
    cost = measure(
        args,
        baseline,
        options.rounds,
        options.warmup,
        compiled,
        options.threads,
        implementations=others,
        hardware=hardware(options.peak, options.threads),
        kernels=options.kernels,
    )
    if options.json:
        write_atomically(options.json, json.dumps(cost, indent=1) + "\n")
    if options.plot:
        draw(cost, options.plot)
    for table in tables(cost):
        Console(width=150).print(table)


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab bench step",
        description="Measure what a training step costs: forward, backward, clip, optimizer, projection.",
    )
    parser.add_argument(
        "--arm",
        action="append",
        metavar="NAME=A.yaml,B.yaml",
        help="an arm and its config files, on base.yaml; or NAME=OTHER or NAME=OTHER,A.yaml,B.yaml for another's model at the "
        "sizes of these files, or of the baseline's: transformers:eager, transformers:sdpa, nGPT-pytorch:manual, "
        "nGPT-pytorch:parametrized",
    )
    parser.add_argument("--baseline", metavar="NAME", help="the arm the others are divided by")
    add_rounds(parser)
    parser.add_argument(
        "--compile", nargs="?", const="", metavar="NAME,NAME", help="compile these arms, or all; else those whose config asks"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="[NAME:]--key=value", help="a setting of fit, for one arm or for all"
    )
    parser.add_argument(
        "--peak",
        default="measured",
        metavar="HARDWARE",
        help="what the floor is computed with: measured (default), or the published figures of a100, h100, h200, ...",
    )
    parser.add_argument("--kernels", action="store_true", help="profile one more step of each arm, by kind of kernel")
    parser.add_argument("--plot", type=Path, help="draw the arms against their floor to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def asked_arms(asked: Sequence[str] | None, baseline: str | None) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Each arm's config files, and the implementation of each that is not ours.

    Raises:
        InputError: an arm that cannot be read, a baseline that is not among them, or nothing to take sizes from.
    """
    if not asked:
        arms, others, order = default_arms(), {}, []
    else:
        split = {arm: arm.partition("=")[2].split(",") for arm in asked}
        others = {arm.partition("=")[0]: files[0] for arm, files in split.items() if IMPLEMENTATION.fullmatch(files[0])}
        order = [arm.partition("=")[0] for arm in asked]
        if len(set(order)) < len(order):
            raise InputError(f"--arm {next(n for n in order if order.count(n) > 1)} is given twice: give each its own name")
        arms = parse_arms([_without_implementation(arm, others) for arm in asked if _has_files(arm, others)])
    if baseline is not None and baseline not in {*arms, *others}:
        raise InputError(f"--baseline {baseline} is not among the arms {', '.join({**arms, **others})}")
    sizes = arms.get(baseline or DEFAULT_BASELINE) or next(reversed(arms.values()), None)
    if sizes is None:
        raise InputError("no arm has config files, which say the sizes: give one as --arm NAME=A.yaml,B.yaml")
    return {name: arms.get(name, sizes) for name in order or arms}, others


def _has_files(arm: str, others: Mapping[str, str]) -> bool:
    name, _, files = arm.partition("=")
    return files != others.get(name)


def _without_implementation(arm: str, others: Mapping[str, str]) -> str:
    name, _, files = arm.partition("=")
    return f"{name}={files.removeprefix(others[name] + ',')}" if name in others else arm


def compiled_arms(asked: str | None, arms: Mapping[str, object]) -> bool | list[str]:
    """Which arms --compile names: none without it, all where it names none.

    Raises:
        InputError: it names an arm that is not there.
    """
    names = asked.split(",") if asked else []
    unknown = [name for name in names if name not in arms]
    if unknown:
        raise InputError(f"--compile {unknown[0]} is not among the arms {', '.join(arms)}")
    return names or asked is not None


def settings_of(name: str, asked: Sequence[str], arms: Mapping[str, object]) -> list[str]:
    """The settings of one arm: those for all, and then its own.

    Raises:
        InputError: a setting of another form, or for an arm that is not there.
    """
    own = []
    for setting in asked:
        arm, colon, word = ("", "", setting) if setting.startswith("--") else setting.partition(":")
        if not word.startswith("--") or "=" not in word:
            raise InputError(f"--set {setting}: give it as --key=value, or as NAME:--key=value for one arm")
        if colon and arm not in arms:
            raise InputError(f"--set {setting}: {arm} is not among the arms {', '.join(arms)}")
        own.append((bool(colon), arm, word))
    return [word for of_one, arm, word in sorted(own, key=lambda entry: entry[0]) if not of_one or arm == name]


def hardware(peak: str, threads: int) -> "Callable[[torch.device], Hardware]":
    """What tells what a device can do.

    Raises:
        InputError: no such hardware.
    """
    from ngpt_lab.bench.floor import measured, named

    if peak == "measured":
        return partial(measured, threads=threads)
    known = named(peak)
    return lambda device: known
