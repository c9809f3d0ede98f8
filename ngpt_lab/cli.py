"""The command line: hands each command to the module that carries it out, and turns bad input into one sentence."""

import sys

from ngpt_lab.errors import InputError

COMMANDS = """usage: ngpt-lab COMMAND ...

  fit        train a model: -c FILE ... composes config files, --print_config shows the result
  validate   evaluate a checkpoint on the validation split: -c RUN/config.yaml --ckpt_path FILE
  test       evaluate a checkpoint on the test split
  predict    write the loss of every test token
  compare    train arms on the same batches and report which is better, by how much, at what cost
  report     the report of runs that exist
  bench      measure the cost of a training step

ngpt-lab COMMAND --help tells more.
"""


def run(arguments: list[str]) -> None:
    """Carry out one command.

    Raises:
        InputError: bad input.
    """
    command = arguments[0] if arguments else "--help"
    # Each command imports what it needs: help and errors come without loading torch.
    if command in ("fit", "validate", "test", "predict"):
        from ngpt_lab.training.cli import CLI

        CLI(arguments)
    elif command == "compare":
        from ngpt_lab.compare import main as compare

        compare(arguments[1:])
    elif command == "report":
        from ngpt_lab.report.command import main as report

        report(arguments[1:])
    elif command == "bench":
        from ngpt_lab.bench.command import main as bench

        bench(arguments[1:])
    elif command in ("-h", "--help"):
        print(COMMANDS, end="")
    else:
        raise InputError(f"{command!r} is no command: ngpt-lab --help lists them")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `ngpt-lab`; bad input ends with exit code 2, Ctrl-C with 130."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        run(words)
    except InputError as error:
        print(f"ngpt-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        again = "; the same command goes on with what is missing" if words[:1] == ["compare"] else ""
        print(f"ngpt-lab: interrupted{again}", file=sys.stderr)
        sys.exit(130)
