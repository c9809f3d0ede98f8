"""`ngpt-lab report`."""

import shlex
from pathlib import Path

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError

DEFAULT_OUT = Path("runs/report")


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab report`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    # Loads matplotlib and pandas, which usage errors need not wait for.
    from ngpt_lab.report import PAGE, collect_runs, is_planned, write_report

    first = options.folders[0]
    if len(options.folders) == 1 and is_planned(first) and options.out is None and options.baseline is None:
        print(write_report(first))
        return
    out = options.out or (first if len(options.folders) == 1 else DEFAULT_OUT)
    if out not in options.folders and out.exists() and not (out / PAGE).is_file() and any(out.iterdir()):
        raise InputError(f"{out} is in use by something else: choose another --out")
    command = shlex.join(["ngpt-lab", "report", *arguments])
    print(write_report(out, collect_runs(options.folders), baseline=options.baseline, command=command))


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(prog="ngpt-lab report", description="Write the report of runs that exist.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run folder, or one that compare or sweep made")
    parser.add_argument("--out", type=Path, help=f"the report's folder (DIR itself; {DEFAULT_OUT} for several)")
    parser.add_argument("--baseline", metavar="NAME", help="the arm the others are compared with")
    return parser
