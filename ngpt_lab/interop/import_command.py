"""`ngpt-lab import`."""

from pathlib import Path

from ngpt_lab.arguments import OptionParser


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab import`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    from ngpt_lab.interop.import_run import import_folder  # loads torch: not needed to tell usage

    run = options.run or Path("runs") / options.folder.resolve().name
    said = import_folder(options.folder, run)
    print(f"{run} holds {said}")


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab import",
        description="Read a Hugging Face model folder (Nemotron or nGPT, safetensors) as a run: every tensor in its own dtype.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds config.json, safetensors, and a tokenizer if any")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="where the run goes (runs/ and DIR's name)")
    return parser
