"""`ngpt-lab eval`."""

from __future__ import annotations

import os
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
# Of options that are not given; those of the one evaluation say nothing of the other.
OF_TASKS = {"include_path": None, "num_fewshot": None, "limit": None, "batch_size": 8, "max_length": None}
OF_LENGTHS = {"windows": 32, "text": None}


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
    parser.add_argument("--batch_size", type=int, metavar="N", help="texts that are read at once (8)")
    parser.add_argument("--max_length", type=int, metavar="N", help="tokens that are read at once (as many as in training)")
    parser.add_argument("--context_lengths", type=words, default=[], metavar="N,N", help="lengths to score the loss at")
    parser.add_argument("--windows", type=int, metavar="N", help="places of the text to score it at (32)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="text to read for it (the run's own validation split)")
    parser.add_argument("--device", help="such as cpu or cuda:0 (the GPU where there is one)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights (auto: as they are stored)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file too")
    return parser


def words(text: str) -> list[str]:
    """What commas part."""
    return [word for part in text.split(",") if (word := part.strip())]


def checked(options: Namespace) -> Namespace:
    """The options, with lengths as numbers, and with their defaults.

    Raises:
        InputError: nothing to do, an option that would change nothing, or a number that makes no sense.
    """
    if not options.tasks and not options.context_lengths:
        raise InputError("nothing to evaluate: give --tasks, --context_lengths or both")
    if options.json and options.tasks and options.context_lengths:
        raise InputError("--json takes the results of one evaluation: give --tasks or --context_lengths, not both")
    given(options, "tasks", OF_TASKS)
    given(options, "context_lengths", OF_LENGTHS)
    if any(not word.isdecimal() or int(word) < 2 for word in options.context_lengths):
        told = ",".join(options.context_lengths)
        raise InputError(f"--context_lengths is {told}: give whole numbers of at least 2, such as 1024,2048")
    options.context_lengths = sorted({int(word) for word in options.context_lengths})
    for name, least in {"batch_size": 1, "windows": 1, "max_length": 2, "num_fewshot": 0}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}: it must be at least {least}")
    if options.limit is not None and not 0 < options.limit < float("inf"):
        raise InputError(f"--limit is {options.limit:g}: it must be a number above 0")
    if options.tasks:
        from ngpt_lab.evaluation.harness import check_installed

        check_installed()
    return options


def given(options: Namespace, wanted: str, of_it: dict[str, Any]) -> None:
    """Fill in the defaults of one evaluation's options.

    Raises:
        InputError: one of them is given, and the evaluation is not asked for.
    """
    for name, default in of_it.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif not getattr(options, wanted):
            raise InputError(f"--{name} says something of --{wanted} alone, which is not given: give both, or neither")


def check_place(path: Path) -> None:
    """See that a file can be written, before there is something to write; folders above it may still have to be made.

    Raises:
        InputError: it cannot.
    """
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{path} cannot be written: {above} is no folder that takes files from you")


def load(options: Namespace) -> tuple[Trained, str]:
    """The run's decoder where it is evaluated, and the name of that device.

    Raises:
        InputError: no run, no device, no place for results, or a run that has no language-model head.
    """
    import torch

    from ngpt_lab.evaluation.lengths import utf8
    from ngpt_lab.evaluation.record import FOLDER
    from ngpt_lab.interop.trained import load_trained
    from ngpt_lab.machine import usable

    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = usable(name)
    if options.text is not None:
        utf8(options.text)
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    trained = load_trained(options.checkpoint, dtype)
    if trained.decoder.lm_head is None:
        raise InputError(
            f"{options.checkpoint} was trained for a task and has no language-model head: give a run of a language model"
        )
    for path in filter(None, (trained.folder / FOLDER / "results.json", options.json)):
        check_place(path)
    trained.decoder.to(device)
    return trained, name


def of_tasks(trained: Trained, options: Namespace, device: str) -> tuple[dict[str, Any], Path]:
    """What the decoder scores on the tasks, and where that is written.

    Raises:
        InputError: bad input.
    """
    from ngpt_lab.evaluation import harness
    from ngpt_lab.evaluation.adapter import SOFTMAX, DecoderLM
    from ngpt_lab.evaluation.tasks import load_tasks
    from ngpt_lab.interop.run_tokenizer import stop_ids

    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = harness.tokenizer_for(trained, Path(temporary))
    loaded = load_tasks(options.tasks, options.include_path)
    length, stop = options.max_length or harness.length_read(trained), stop_ids(trained.folder, tokenizer.eos_token_id)
    lm = DecoderLM(trained.decoder, tokenizer, length, options.batch_size, stop)
    harness.check_generation(lm, loaded)
    results = harness.results(lm, loaded, options.num_fewshot, options.limit)
    settings = {
        **{name: getattr(options, name) for name in ("tasks", "num_fewshot", "limit", "batch_size")},
        "max_length": lm.max_length,
        "softmax_dtype": str(SOFTMAX).removeprefix("torch."),
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
