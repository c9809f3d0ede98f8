"""`ngpt-lab sweep`."""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.prompt import Confirm

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.sweep.executor_option import NAMES, OPTION, read_site, split

if TYPE_CHECKING:
    from ngpt_lab.sweep.claims import Claims
    from ngpt_lab.sweep.plan import Sweep
    from ngpt_lab.sweep.sites import Demand, Site
    from ngpt_lab.sweep.spec import Spec

MANY_RUNS = 1000


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab sweep`.

    Raises:
        InputError: bad input, or runs that failed.
    """
    about_executor, others = split(arguments)
    options = parser().parse_args(others)
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers is {options.workers}: at least 1 is needed")
    site = read_site(about_executor)
    # What follows loads torch and lightning, which usage errors need not wait for.
    from ngpt_lab.sweep.plan import make_sweep
    from ngpt_lab.sweep.spec_file import read_spec

    spec = read_spec(options.spec)
    confirm(spec, options.yes)
    sweep = make_sweep(spec, options.out or Path("runs") / spec.name)
    if options.wandb:
        from ngpt_lab.sweep.wandb_file import wandb_file

        write_atomically(options.wandb, yaml.safe_dump(wandb_file(sweep), sort_keys=False))
        print(f"the sweep file: {options.wandb}; start agents with wandb sweep and wandb agent")
        return
    demand = demand_of(sweep, options.workers)
    if options.dry_run:
        from ngpt_lab.sweep.dry_run import show

        show(sweep, site.side_by_side(demand))
        return
    chosen = only(sweep, options.run)
    sweep.settle(shlex.join(["ngpt-lab", "sweep", *arguments]))
    carry_out(chosen, sweep, site, demand, options.retry)


def carry_out(wanted: "Sweep", sweep: "Sweep", site: "Site", demand: "Demand", retry: bool) -> None:
    """Train what is not trained of `wanted`, a part of `sweep` or all of it, at a site, and report.

    Raises:
        InputError: runs failed; all others are finished and reported.
    """
    from ngpt_lab.sweep.claims import Claims
    from ngpt_lab.sweep.executor import serve
    from ngpt_lab.sweep.results import write_results
    from ngpt_lab.sweep.tuning import choose, without_choice

    def ended() -> None:
        write_results(sweep.folder)

    console = Console()
    console.print(f"{sweep.spec.question}\n{len(wanted.trials)} trials and {len(wanted.finals)} final runs in {sweep.folder}")
    with Claims(sweep.folder / "claims") as claims, site.open(demand, claims) as executor:
        trials = [wanted.planned(run, {}) for run in wanted.trials]
        if lost := serve(trials, executor, claims, retry, ended):
            console.print(
                f"{len(lost)} trials failed and count as the worst; ngpt-lab status {sweep.folder} --failed tells why"
            )
        chosen = choose(wanted)
        finals = [wanted.planned(run, chosen[run]) for run in wanted.finals if run in chosen]
        failed = serve(finals, executor, claims, retry, ended)
        if wanted is sweep and sweep.spec.step_cost:
            measure_once(sweep, site, claims, console)
    ended()
    report(sweep, console, whole=not failed and wanted is sweep)
    if failed:
        run, error = failed[0]
        raise InputError(f"{len(failed)} run(s) failed; the first, {run.folder}: {error} (--retry tries them again)")
    if (missing := without_choice(wanted, chosen)) is not None:
        raise missing


def report(sweep: "Sweep", console: Console, whole: bool) -> None:
    """Write the report on what is finished.

    Raises:
        InputError: there is nothing to report on, though all runs are finished.
    """
    from ngpt_lab.report import write_report

    try:
        console.print(f"the report: {write_report(sweep.folder)}")
    except InputError as problem:
        if whole:
            raise
        console.print(f"no report: {problem}")


def demand_of(sweep: "Sweep", workers: int | None) -> "Demand":
    """What the runs of a sweep ask for; where conditions differ in it, what is enough for each."""
    from ngpt_lab.sweep.sites import Demand

    devices, nodes = (max(getattr(cell, name) for cell in sweep.cells) for name in ("devices", "nodes"))
    accelerator = sweep.cells[0].settings["trainer.accelerator"]  # a specification that varies it is refused
    return Demand(sweep.folder, len(sweep.runs), accelerator, devices, nodes, workers)


def measure_once(sweep: "Sweep", site: "Site", claims: "Claims", console: Console) -> None:
    """Measure the steps where nobody has; a worker that finds another at it does nothing beside it."""
    path = sweep.folder / "step_cost.json"
    if not site.here and not path.is_file():
        console.print("the cost of a step is for a machine that trains to tell: the command without --executor there tells it")
        return
    while not path.is_file():
        if claims.take("step_cost"):
            measure_steps(sweep, path, console)
            return
        time.sleep(1)


def measure_steps(sweep: "Sweep", path: Path, console: Console) -> None:
    """Measure the step of every arm, in each condition."""
    from ngpt_lab.bench.step import measure
    from ngpt_lab.sweep.train import quiet

    console.print(f"measuring the cost of a step, {sweep.spec.step_cost} interleaved rounds")
    measured = []
    for condition in sweep.spec.conditions:
        arms = {cell.arm: cell.arguments for cell in sweep.cells if cell.condition == condition}
        if arms:
            try:
                with quiet():
                    told = measure(arms, sweep.spec.baseline, sweep.spec.step_cost)
            except InputError as problem:  # what was trained is worth its report all the same
                console.print(f"the cost of a step is not measured: {problem}")
                return
            measured.append({"condition": dict(condition), **told})
    write_atomically(path, json.dumps({"conditions": measured}, indent=1) + "\n")


def only(sweep: "Sweep", names: Sequence[str]) -> "Sweep":
    """The sweep less all final runs but those named, and less the trials that these do not need; all of it without names.

    Raises:
        InputError: a name that no final run has.
    """
    if not names:
        return sweep
    from ngpt_lab.sweep.tuning import is_tried_for

    known = {run.name: run for run in sweep.finals}
    for name in names:
        if name not in known:
            raise InputError(f"--run {name}: there is no such run; ngpt-lab sweep {sweep.spec.path} --dry-run lists them")
    finals = [known[name] for name in dict.fromkeys(names)]
    trials = [trial for trial in sweep.trials if any(is_tried_for(sweep, trial, run) for run in finals)]
    return replace(sweep, trials=tuple(trials), finals=tuple(finals))


def confirm(spec: "Spec", yes: bool) -> None:
    """Ask before thousands of runs.

    Raises:
        InputError: nobody is there to ask, or the answer is no.
    """
    count = spec.largest_size
    if count <= MANY_RUNS or yes:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{spec.path} asks for up to {count:,} runs: say --yes if that is meant")
    if not Confirm.ask(f"{spec.path} asks for up to {count:,} runs. Go on?", default=False):
        raise InputError(f"{spec.path}: nothing was started")


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab sweep",
        description="Carry out the runs of a specification that are not finished, and report. Several may serve one sweep.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="a specification, such as experiments/QUESTION/sweep.yaml")
    parser.add_argument("--out", type=Path, help="the sweep's folder (runs/QUESTION)")
    parser.add_argument("--dry-run", action="store_true", help="print every run and an estimate of time, and stop")
    parser.add_argument("--workers", type=int, help="runs side by side (one per GPU, else one per core)")
    parser.add_argument(
        OPTION,
        metavar="|".join(NAMES),
        help="where runs are carried out (local), with settings such as --executor.minutes",
    )
    parser.add_argument("--retry", action="store_true", help="try failed runs again")
    parser.add_argument("--run", action="append", default=[], metavar="NAME", help="only this run, and the trials it needs")
    parser.add_argument("--yes", action="store_true", help=f"do not ask before more than {MANY_RUNS} runs")
    parser.add_argument("--wandb", type=Path, metavar="FILE", help="write a Weights & Biases sweep file, and stop")
    return parser
