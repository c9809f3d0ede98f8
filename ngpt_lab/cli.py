"""The command line: hands each command to the module that carries it out, and turns bad input into one sentence."""

import sys
from importlib import import_module

from ngpt_lab.errors import InputError
from ngpt_lab.interruption import EXIT_CODE, Interrupted, Signals

COMMANDS = """usage: ngpt-lab COMMAND ...

  fit        train a model: -c FILE ... composes config files, --print_config shows the result
  validate   evaluate a checkpoint on the validation split: -c RUN/config.yaml --ckpt_path FILE
  test       evaluate a checkpoint on the test split
  predict    write the loss of every test token
  tokenize   turn text into tokens ahead of a run, or check tokens that exist
  import     read a Hugging Face model folder, as a run
  export     write a run's model as a folder that Hugging Face's classes load
  consolidate  make one file of a checkpoint that several processes wrote
  generate   continue a text
  eval       score a model on tasks, and its loss by the length of the context
  compare    train arms on the same batches and report which is better, by how much, at what cost
  sweep      carry out the runs of a specification that are not finished, and report
  status     how far a sweep, a comparison or a run is
  diff       what differs between two runs
  report     the report of runs that exist
  tables     redraw a sweep's tables from its results.csv
  plan       what a run will need before it runs: parameters, memory, operations, time
  bench      measure the cost of a training step, of generating, of reading and tokenizing, and memory

ngpt-lab COMMAND --help tells more.
"""
OF_LIGHTNING = ("fit", "validate", "test", "predict")
MODULES = {
    "tokenize": "ngpt_lab.training.tokenize_command",
    "import": "ngpt_lab.interop.import_command",
    "export": "ngpt_lab.interop.export_command",
    "consolidate": "ngpt_lab.training.parallel.consolidate_command",
    "generate": "ngpt_lab.generation.command",
    "eval": "ngpt_lab.evaluation.command",
    "compare": "ngpt_lab.compare.command",
    "sweep": "ngpt_lab.sweep.command",
    "status": "ngpt_lab.sweep.status",
    "diff": "ngpt_lab.sweep.diff",
    "report": "ngpt_lab.report.command",
    "tables": "ngpt_lab.analysis.tables_command",
    "plan": "ngpt_lab.plan.command",
    "bench": "ngpt_lab.bench.command",
}
# They clean up what they have half written, and know of no signal.
WRITERS = ("tokenize", "import", "export", "consolidate")
GO_ON = ("compare", "sweep", "tokenize")
AGAIN = "the same command goes on with what is missing"


def run(arguments: list[str]) -> None:
    """Carry out one command.

    Raises:
        InputError: bad input.
    """
    command = arguments[0] if arguments else "--help"
    # Each command imports what it needs: help, status and errors come without loading torch.
    if command in OF_LIGHTNING:
        with Signals() as signals:
            from ngpt_lab.training.cli import CLI

            CLI(arguments, signals=signals)
    elif command in WRITERS:
        with Signals() as signals:
            signals.go_on = AGAIN if command in GO_ON else ""
            import_module(MODULES[command]).main(arguments[1:])
    elif command in MODULES:
        import_module(MODULES[command]).main(arguments[1:])
    elif command in ("-h", "--help"):
        print(COMMANDS, end="")
    else:
        raise InputError(f"{command!r} is no command: ngpt-lab --help lists them")


def of_the_system(error: OSError) -> str:
    """What the system refused, in one line: on which file, and why."""
    why = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return why if error.filename is None else f"{error.filename}: {why}"


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `ngpt-lab`; bad input ends with exit code 2, Ctrl-C with 130, SIGTERM and SIGUSR1 with 143."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        run(words)
    except InputError as error:
        print(f"ngpt-lab: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"ngpt-lab: {of_the_system(error)}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as interruption:
        print(f"ngpt-lab: {interruption}", file=sys.stderr)
        sys.exit(EXIT_CODE)
    except KeyboardInterrupt:
        again = f"; {AGAIN}" if words[:1] and words[0] in GO_ON else ""
        print(f"ngpt-lab: interrupted{again}", file=sys.stderr)
        sys.exit(130)
