"""The options that every interleaved measurement has."""

import argparse

from ngpt_lab.errors import InputError


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """Add how many rounds count, how many come first, and the threads."""
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (15)")
    parser.add_argument("--warmup", type=int, default=3, help="rounds that come before them (3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")


def check_rounds(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured.

    Raises:
        InputError: too few rounds or threads.
    """
    for name, least in (("rounds", 1), ("warmup", 0), ("threads", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}: it must be at least {least}")
