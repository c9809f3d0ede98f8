"""`ngpt-lab eval`."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from ngpt_lab.interop.trained import Trained

DTYPES = ("auto", "float32", "bfloat16", "float16")


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab eval`.

    Raises:
        InputError: bad input.
    """
    options = checked(parser().parse_args(arguments))
    from ngpt_lab.evaluation import tables  # torch is not needed to tell usage

    trained, device = load(options)
    console = Console(width=140)
    if options.tasks:
        record, written = of_tasks(trained, options, device)
        console.print(tables.tasks_table(record), f"written to {written}")
    if options.context_lengths:
        record, written = of_lengths(trained, options, device)
        console.print(tables.lengths_table(record), f"written to {written}")


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab eval",
        description="Score a model on tasks of lm-evaluation-harness, and its loss by the length of the context; the results "
        "go to a JSON file in RUN/eval.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a run's folder, or one of its checkpoints")
    parser.add_argument("--tasks", type=words, default=[], metavar="A,B", help="tasks, groups, patterns, or task files")
    parser.add_argument("--include_path", type=Path, metavar="PATH", help="a folder of task files of yours, or one such file")
    parser.add_argument("--num_fewshot", type=int, metavar="N", help="examples before each text, unless a task fixes them")
    parser.add_argument("--limit", type=float, metavar="N", help="texts of each task, or below 1 their share; to try it out")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="texts that are read at once (8)")
    parser.add_argument("--max_length", type=int, metavar="N", help="tokens that are read at once (as many as in training)")
    parser.add_argument("--context_lengths", type=words, default=[], metavar="N,N", help="lengths to score the loss at")
    parser.add_argument("--windows", type=int, default=32, metavar="N", help="places of the text to score it at (32)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="text to read for it (the run's own validation split)")
    parser.add_argument("--device", help="such as cpu or cuda:0 (the GPU where there is one)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights (auto: as they are stored)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    return parser


def words(text: str) -> list[str]:
    """What commas part."""
    return [word for part in text.split(",") if (word := part.strip())]


def checked(options: Namespace) -> Namespace:
    """The options, with lengths as numbers.

    Raises:
        InputError: nothing to do, or a number that makes no sense.
    """
    if not options.tasks and not options.context_lengths:
        raise InputError("nothing to evaluate: give --tasks, --context_lengths or both")
    if options.json and options.tasks and options.context_lengths:
        raise InputError("--json takes the results of one evaluation: give --tasks or --context_lengths, not both")
    if any(not word.isdecimal() or int(word) < 2 for word in options.context_lengths):
        told = ",".join(options.context_lengths)
        raise InputError(f"--context_lengths is {told}: give whole numbers of at least 2, such as 1024,2048")
    options.context_lengths = sorted({int(word) for word in options.context_lengths})
    for name, least in {"batch_size": 1, "windows": 1, "max_length": 2, "num_fewshot": 0}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}: it must be at least {least}")
    if options.limit is not None and not options.limit > 0:
        raise InputError(f"--limit is {options.limit:g}: it must be above 0")
    if options.tasks:
        from ngpt_lab.evaluation.harness import check_installed

        check_installed()
    return options


def load(options: Namespace) -> tuple[Trained, str]:
    """The run's decoder where it is evaluated, and the name of that device.

    Raises:
        InputError: no run, no device, or a run that has no language-model head.
    """
    import torch

    from ngpt_lab.interop.trained import load_trained

    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # To see that it is there, before anything is read.
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    trained = load_trained(options.checkpoint, dtype)
    if trained.decoder.lm_head is None:
        raise InputError(
            f"{options.checkpoint} was trained for a task and has no language-model head: give a run of a language model"
        )
    trained.decoder.to(name)
    return trained, name


def of_tasks(trained: Trained, options: Namespace, device: str) -> tuple[dict[str, Any], Path]:
    """What the decoder scores on the tasks, and where that is written.

    Raises:
        InputError: bad input.
    """
    from ngpt_lab.evaluation import harness
    from ngpt_lab.evaluation.adapter import DecoderLM
    from ngpt_lab.evaluation.tasks import load_tasks

    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = harness.tokenizer_for(trained, Path(temporary))
    loaded = load_tasks(options.tasks, options.include_path)
    lm = DecoderLM(trained.decoder, tokenizer, options.max_length or harness.length_read(trained), options.batch_size)
    results = harness.results(lm, loaded, options.num_fewshot, options.limit)
    settings = {
        **{name: getattr(options, name) for name in ("tasks", "num_fewshot", "limit", "batch_size")},
        "max_length": lm.max_length,
        "task_files": loaded.files,
    }
    names = [Path(name).stem if name in loaded.files else name for name in options.tasks]
    return written(trained, options, device, names, settings, {**results, "cut_requests": lm.cut})


def of_lengths(trained: Trained, options: Namespace, device: str) -> tuple[dict[str, Any], Path]:
    """The decoder's loss by length, and where that is written.

    Raises:
        InputError: bad input.
    """
    from ngpt_lab.evaluation import lengths

    results = lengths.results(trained, options.context_lengths, options.windows, options.text)
    settings = {
        "context_lengths": options.context_lengths,
        "windows": options.windows,
        "text": None if options.text is None else str(options.text),
        "fingerprint": results["data"]["fingerprint"],
    }
    return written(trained, options, device, ["context-lengths"], settings, results)


def written(
    trained: Trained,
    options: Namespace,
    device: str,
    names: list[str],
    settings: dict[str, Any],
    results: dict[str, Any],
) -> tuple[dict[str, Any], Path]:
    """The record of an evaluation, and where it is written."""
    from ngpt_lab.evaluation.record import checkpoint, write

    record = {
        "checkpoint": checkpoint(options.checkpoint, trained.folder),
        "settings": {**settings, "device": device, "dtype": options.dtype},
        "results": results,
    }
    return record, write(trained.folder, names, record, options.json)
