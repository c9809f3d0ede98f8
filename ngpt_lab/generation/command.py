"""`ngpt-lab generate`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.machine import usable

if TYPE_CHECKING:
    import torch

    from ngpt_lab.data.tokenizer_files import TextTokenizer
    from ngpt_lab.generation.sampling import Sampler
    from ngpt_lab.interop.trained import Trained
    from ngpt_lab.models import Decoder

SEQ_LEN = "data.init_args.seq_len"
DTYPES = ("stored", "float32", "bfloat16", "float16")
FILTERS = ("top_k", "top_p", "min_p")
SEEDS = 2**64
# The id of no token.
NONE = -1


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab generate`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    import torch  # takes a while: not needed to tell usage

    from ngpt_lab.interop.run_tokenizer import stop_ids, tokenizer_of
    from ngpt_lab.interop.trained import load_trained

    if options.max_new_tokens < 1:
        raise InputError(f"--max_new_tokens is {options.max_new_tokens}: it must be at least 1")
    device = usable(options.device)
    chosen_by = sampler(options, device)
    trained = load_trained(options.checkpoint, None if options.dtype == "stored" else getattr(torch, options.dtype))
    if trained.decoder.lm_head is None:
        raise InputError(f"{options.checkpoint} has a task's head, which gives no next token: give a language model")
    tokenizer = tokenizer_of(trained.folder)
    if tokenizer is None:
        raise InputError(f"{trained.folder} has no tokenizer, and what it was trained on tells of none: put one's files in it")
    ids = encoded(prompt(options), tokenizer, trained.decoder.dims.vocab_size)
    warn_of_length(trained, len(ids), options.max_new_tokens)
    stop = stop_ids(trained.folder, tokenizer.eos)
    new = continuation(trained.decoder.to(device), ids, options.max_new_tokens, chosen_by, stop)
    show(numbers(new) if options.ids else words(new, tokenizer, ids, stop))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab generate",
        description="Continue a text: the new text comes as it is made, to the end that the model gives it or the longest.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a run's folder, or one of its checkpoints")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="the text to continue (what comes in from standard input)")
    source.add_argument("--prompt_file", type=Path, metavar="FILE", help="a file that holds it")
    parser.add_argument("--max_new_tokens", type=int, default=100, metavar="N", help="the longest (100)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="how far less likely tokens are drawn too; 0 takes the likeliest (0)"
    )
    parser.add_argument("--top_k", type=int, metavar="K", help="draw from the K likeliest tokens")
    parser.add_argument("--top_p", type=float, metavar="P", help="draw from the likeliest, as few as together have this share")
    parser.add_argument("--min_p", type=float, metavar="P", help="draw from those with this share of the likeliest one's")
    parser.add_argument("--seed", type=int, metavar="N", help="draw the same again (another each time)")
    parser.add_argument("--dtype", choices=DTYPES, default="stored", help="of the weights (stored)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--ids", action="store_true", help="print the new tokens' ids, not their text")
    return parser


def prompt(options: argparse.Namespace) -> str:
    """The text to continue.

    Raises:
        InputError: it is empty, or cannot be read as UTF-8.
    """
    where = f"{options.prompt_file}" if options.prompt_file else "the prompt"
    try:
        if options.prompt is not None:
            text: str = options.prompt
            text.encode()
        else:
            text = (options.prompt_file.read_bytes() if options.prompt_file else sys.stdin.buffer.read()).decode()
    except UnicodeError as error:
        raise InputError(f"{where} is not UTF-8: {error.reason if hasattr(error, 'reason') else error}") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    if not text:
        raise InputError(f"{where} is empty: give a text to continue")
    return text


def sampler(options: argparse.Namespace, device: torch.device) -> Sampler:
    """How a token is chosen.

    Raises:
        InputError: a value out of its range, or one for drawing where nothing is drawn.
    """
    import torch

    from ngpt_lab.generation.sampling import Greedy, Sampling

    filters = {name: value for name in FILTERS if (value := getattr(options, name)) is not None}
    if options.temperature == 0:
        of_drawing = [*filters, *(() if options.seed is None else ("seed",))]
        if of_drawing:
            raise InputError(f"--{of_drawing[0]} needs a --temperature above 0: at 0 nothing is drawn")
        return Greedy()
    if options.seed is not None and not 0 <= options.seed < SEEDS:
        raise InputError(f"--seed is {options.seed}: it must be at least 0 and below {SEEDS}")
    generator = torch.Generator(device)
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed)
    return Sampling(options.temperature, **filters, generator=generator)


def encoded(text: str, tokenizer: TextTokenizer, vocab_size: int) -> list[int]:
    """The ids of the prompt, with what the tokenizer adds to a text.

    Raises:
        InputError: the tokenizer cannot encode it, or is another model's.
    """
    try:
        ids = tokenizer.encode_with_template(text)
    except Exception as error:  # the library's only class of errors
        raise InputError(f"the tokenizer cannot encode the prompt: {str(error).partition(chr(10))[0]}") from error
    if not ids:
        raise InputError("the tokenizer makes no token of the prompt: give another text")
    if max(ids) >= vocab_size:
        raise InputError(
            f"the tokenizer gives id {max(ids)}, and the model knows {vocab_size}: it is another model's tokenizer"
        )
    return ids


def warn_of_length(trained: Trained, prompt: int, new: int) -> None:
    """Say where the text can grow longer than any that the model has learned from."""
    learned = trained.settings.get(SEQ_LEN)
    if isinstance(learned, int) and prompt + new > learned:
        told = f"the text can grow to {prompt + new} tokens, and the model was trained on at most {learned} at a time"
        print(f"ngpt-lab: {told}", file=sys.stderr)


def continuation(decoder: Decoder, ids: list[int], max_new_tokens: int, chosen_by: Sampler, stop: set[int]) -> Iterator[int]:
    """The ids that follow those of one text."""
    import torch

    from ngpt_lab.generation.loop import generate

    tokens = torch.tensor([ids], device=decoder.embedding.weight.device)
    # Every id is looked at when it comes, those of a model that ends no text too.
    for new in generate(decoder, tokens, max_new_tokens=max_new_tokens, sampler=chosen_by, stop=stop or {NONE}):
        yield int(new)


def numbers(new: Iterator[int]) -> Iterator[str]:
    """The ids, between blanks."""
    for at, token in enumerate(new):
        yield f"{' ' if at else ''}{token}"


def words(new: Iterator[int], tokenizer: TextTokenizer, before: list[int], stop: set[int]) -> Iterator[str]:
    """The text of the ids, without the one that ends it."""
    from ngpt_lab.generation.pieces import Pieces

    pieces = Pieces(tokenizer, before)
    for token in new:
        if token not in stop:
            yield pieces.push(token)
    yield pieces.rest()


def show(pieces: Iterator[str]) -> None:
    """Write pieces as they come, and a line break; whoever reads them may have had enough, or no letter for some of it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    end = ""
    try:
        try:
            for piece in pieces:
                end = "\n"
                sys.stdout.write(piece)
                sys.stdout.flush()
        finally:
            sys.stdout.write(end)
            sys.stdout.flush()
    except BrokenPipeError:
        # What is left to flush when Python ends would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
