"""`ngpt-lab compare`."""

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.training.arms import DEFAULT_BASELINE, default_arms, parse_arms, shipped

if TYPE_CHECKING:
    from ngpt_lab.compare.plan import Plan


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab compare`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    for name, least in (("seeds", 1), ("rounds", 2), ("workers", 1)):
        given = getattr(options, name)
        if given is not None and given < least:
            raise InputError(f"--{name} is {given}: at least {least} is needed")
    arms = parse_arms(options.arm) if options.arm else default_arms()
    baseline = options.baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in arms else list(arms)[-1])
    if baseline not in arms:
        raise InputError(f"--baseline {baseline} is not among the arms {', '.join(arms)}")
    # What follows loads torch and lightning, which usage errors need not wait for.
    from ngpt_lab.compare.lock import locked
    from ngpt_lab.compare.plan import make_plan

    overrides = [*precision(options.precision), *options.set]
    plan = make_plan(options.out, arms, baseline, options.seeds, options.budgets, overrides, options.allow_unequal)
    with locked(options.out):
        plan.settle(shlex.join(["ngpt-lab", "compare", *arguments]))
        tuning = options.tuning or (None if options.arm else shipped("quickstart") / "results.csv")
        if tuning is not None:
            write_atomically(options.out / "tuning.csv", read_rows(tuning))
        carry_out(plan, options.workers, options.rounds)


def carry_out(plan: "Plan", workers: int | None, rounds: int) -> None:
    """Train what is not trained, measure the steps where they are not measured, and report.

    Raises:
        InputError: runs failed.
    """
    from ngpt_lab.bench.step import measure
    from ngpt_lab.report import write_report
    from ngpt_lab.sweep.train import quiet

    console = Console()
    counts = f"{len(plan.arms)} arms x {len(plan.budgets)} budgets x {len(plan.seeds)} seeds"
    console.print(f"{counts}, on {plan.data['source']}, in {plan.folder}")
    try:
        train(plan, workers)
    except InputError:
        with suppress(InputError):  # where there is nothing to report on, the failure says enough
            console.print(f"the report of the others: {write_report(plan.folder)}")
        raise
    cost = plan.folder / "step_cost.json"
    if not cost.is_file():
        console.print(f"measuring the cost of a step, {rounds} interleaved rounds")
        with quiet():
            write_atomically(cost, json.dumps(measure(plan.arms, plan.baseline, rounds), indent=1) + "\n")
    page = write_report(plan.folder)
    console.print(json.loads((plan.folder / "summary.json").read_text())["claim"])
    console.print(f"the report: {page}")


def train(plan: "Plan", workers: int | None) -> None:
    """Train what is not trained, side by side.

    Each run has one CPU thread: two runs side by side use two cores better than one run on both.

    Raises:
        InputError: runs failed; all others are finished.
    """
    from ngpt_lab.sweep.executor import serve
    from ngpt_lab.sweep.pool import LocalPool, default_workers

    left = [run for run in plan.runs if not run.finished]
    if not left:
        return
    accelerator, devices = plan.settings[plan.baseline]["trainer.accelerator"], left[0].devices
    at_once = workers or default_workers(len(plan.runs), accelerator, devices)
    with LocalPool(at_once, accelerator, devices, threads=1) as pool:
        failed = serve(left, pool, retry=True)
    if failed:
        run, error = failed[0]
        raise InputError(f"{len(failed)} of {len(left)} runs failed; the first, {run.folder}, with {error}")


def read_rows(file: Path) -> bytes:
    """The rows of a search.

    Raises:
        InputError: there is no such file.
    """
    if not file.is_file():
        raise InputError(f"--tuning {file}: there is no such file")
    return file.read_bytes()


def precision(asked: str | None) -> list[str]:
    """The precision every arm trains in, as an argument of `fit`; `auto` is bf16-mixed where the hardware has bfloat16."""
    if asked != "auto":
        return [] if asked is None else [f"--trainer.precision={asked}"]
    import torch

    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return [f"--trainer.precision={'bf16-mixed' if native else '32-true'}"]


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab compare",
        description="Train arms on the same batches and report which is better, by how much, at what cost.",
    )
    parser.add_argument(
        "--arm", action="append", metavar="NAME=A.yaml,B.yaml", help="an arm and its config files, on base.yaml"
    )
    parser.add_argument("--baseline", metavar="NAME", help="the arm the others are compared with")
    parser.add_argument("--seeds", type=int, default=3, help="paired seeds (3)")
    parser.add_argument(
        "--budgets", type=int, nargs="+", metavar="TOKENS", help="finished budgets (1/4, 1/2 and all of max_steps)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="the comparison's folder (runs/compare)")
    parser.add_argument(
        "--precision", default="auto", help="a precision of Trainer, or auto (bf16-mixed where the hardware has it)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the step measurement (15)")
    parser.add_argument("--workers", type=int, help="runs side by side (one per core; one on a GPU)")
    parser.add_argument("--tuning", type=Path, help="the rows of the search that chose the arms' settings, as CSV")
    parser.add_argument("--set", action="append", default=[], metavar="--key=value", help="a setting of fit, for every arm")
    parser.add_argument("--allow-unequal", action="store_true", help="go on with arms whose sizes are more than 2%% apart")
    return parser
