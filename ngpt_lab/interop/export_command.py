"""`ngpt-lab export`."""

from pathlib import Path

from ngpt_lab.arguments import OptionParser


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab export`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    import torch  # slow to load: not needed to tell usage

    from ngpt_lab.interop.export_run import export_run

    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    made = export_run(options.checkpoint, options.folder, dtype, options.max_shard_size)
    files = f"{len(made.files)} files" if len(made.files) > 1 else made.files[0]
    print(f"{options.folder} holds {made.architecture} with {made.entries:,} parameters in {files}")
    if not made.tokenizer:
        print("without a tokenizer: the run has kept none, and its data names none that could be made again")


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab export",
        description="Write a run's model as a folder that Hugging Face's classes load: config, weights, tokenizer, model card.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a run's folder, or one of its checkpoints")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the folder goes; it must not be there yet")
    kinds = ("float32", "bfloat16", "float16")
    parser.add_argument(
        "--dtype", choices=kinds, help="of the weights, eigen learning rates apart (each keeps its own)", metavar="DTYPE"
    )
    parser.add_argument("--max_shard_size", default="5GB", metavar="SIZE", help="of the largest file of weights (5GB)")
    return parser
