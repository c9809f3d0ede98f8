"""What a sweep would do: every run with its settings, parameters and operations, and how long this machine may take."""

import time

import torch
from rich.console import Console
from rich.table import Table

from ngpt_lab.analysis.wording import duration
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.cells import names_of_points
from ngpt_lab.sweep.plan import FINAL, Sweep, SweepRun

# A step of more operations than this is tried with one sequence a batch.
LARGEST_TRIED = 5e11
# Lines longer than a terminal's are better than cut names.
WIDTH_OF_A_FILE = 200
# A forward pass is a third of a training step.
FORWARD = 1 / 3


def show(sweep: Sweep, workers: int, console: Console | None = None) -> None:
    """Print the runs, and the estimate for `workers` side by side."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_A_FILE)
    speed = measured_speed(sweep)
    table = Table("run", "settings", "parameters", "tokens", "operations", "estimate", box=None, pad_edge=False)
    for run in sweep.runs:
        table.add_row(
            run.name,
            settings_of(sweep, run),
            f"{run.cell.parameters:,}",
            f"{run.steps * run.cell.tokens_per_step:,}",
            f"{run.flops:.3g}",
            duration(run_flops(run) / speed) if speed else "?",
        )
    console.print(table)
    done = sum(1 for run in sweep.runs if sweep.planned(run, {}).finished)
    console.print(
        f"{len(sweep.runs)} runs ({len(sweep.trials)} trials, {len(sweep.finals)} final), {done} finished; in {sweep.folder}"
    )
    if speed is None:
        console.print("no estimate: a step of this size could not be tried on this machine")
        return
    total = sum(run_flops(run) for run in sweep.runs if not sweep.planned(run, {}).finished) / speed
    console.print(
        f"an estimate of what is left on this machine: {duration(total / workers)}, {workers} at a time, "
        f"at the {speed:.3g} operations a second of a step of {sweep.spec.baseline}"
    )


def settings_of(sweep: Sweep, run: SweepRun) -> str:
    """What the run sets beyond its base: ablation, points, and what is tried or will be chosen."""
    names = names_of_points(sweep.spec)
    told = [run.cell.ablation] if run.cell.ablation else []
    told += [f"{names[key]}={value}" for key, value in {**run.cell.condition, **run.cell.point, **run.trial}.items()]
    if run.stage == FINAL and sweep.spec.tuning:
        points = sweep.spec.tuning.points[run.cell.base.name]
        told.append(f"{', '.join(names[key] for key in points[0])} of {len(points)} trials")
    return " ".join(told) or "-"


def run_flops(run: SweepRun) -> float:
    """Operations of a run, its evaluations included."""
    settings = run.cell.settings
    sequences, length = settings.get("data.init_args.eval_windows"), settings.get("data.init_args.seq_len")
    evaluated = (sequences or 0) * (length or 0)
    every = (settings["trainer.val_check_interval"] or 0) / settings["trainer.accumulate_grad_batches"]
    times = 2 + (run.steps // every if every >= 1 else 0)
    return run.flops + FORWARD * evaluated * times * run.cell.flops_per_token


def measured_speed(sweep: Sweep) -> float | None:
    """Operations a second of a training step of the baseline's first cell, as one process of a sweep runs it."""
    from ngpt_lab.bench.step import Arm, load, shared_device

    cell = next(cell for cell in sweep.cells if cell.arm == sweep.spec.baseline)
    arguments = list(cell.arguments)
    if cell.flops_per_token * cell.tokens_per_step > LARGEST_TRIED:
        arguments += ["--data.batch_size=1", "--trainer.accumulate_grad_batches=1"]
    before = torch.get_num_threads()
    try:
        cli = load(arguments)
        device = shared_device({cell.arm: cli})
        if device.type == "cpu":
            torch.set_num_threads(1)
        arm = Arm(cli, device, compiled=False)
        arm.step()
        start = time.perf_counter()
        arm.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return cell.flops_per_token * arm.tokens / (time.perf_counter() - start)
    except (InputError, torch.OutOfMemoryError):
        return None
    finally:
        torch.set_num_threads(before)
