"""How the speed of a run grows with its processes: every figure from a `fit` of its own, counts and strategies taking turns."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from ngpt_lab.bench.timing import ratio
from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.metrics_file import whole_rows

NEVER = 10**9
# Nothing but training, and one logged row before the steps that count and one after them.
ALONE = (
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
    f"--checkpoint.every_n_train_steps={NEVER}",
    "--checkpoint.every_minutes=null",
    f"--telemetry.scales_every_n_steps={NEVER}",
)


@dataclass(frozen=True)
class Division:
    """How a run is divided.

    Args:
        strategy: ddp, fsdp2, tp or fsdp2+tp; `auto` where one process does all.
        processes: on this machine.
        tensor: how many of them share each block.
    """

    strategy: str
    processes: int
    tensor: int = 1

    @property
    def data(self) -> int:
        """Groups of processes that share a batch's windows."""
        return self.processes // self.tensor

    @property
    def name(self) -> str:
        """Of the row that tells of it."""
        return f"{self.strategy} {self.processes}" if self.processes > 1 else "one process"

    @property
    def settings(self) -> list[str]:
        """The arguments of `fit` for it."""
        return [f"--trainer.strategy={self.strategy}", f"--trainer.devices={self.processes}", "--trainer.num_nodes=1"]


ONE = Division("auto", 1)


def divisions(strategies: Sequence[str], processes: Sequence[int]) -> list[Division]:
    """Every strategy with every count above one, after one process; with fsdp2+tp, two processes share each block.

    Raises:
        InputError: a count that fsdp2+tp cannot divide.
    """
    made = [ONE]
    for strategy, count in product(strategies, (n for n in processes if n > 1)):
        if strategy == "fsdp2+tp" and (count < 4 or count % 2):
            raise InputError(f"--processes {count}: fsdp2+tp needs an even number of at least 4 processes")
        made.append(Division(strategy, count, {"tp": count, "fsdp2+tp": 2}.get(strategy, 1)))
    return made


def measure(
    args: Sequence[str], divided: Sequence[Division], rounds: int = 5, steps: int = 20, weak: bool = False
) -> dict[str, Any]:
    """Tokens a second of a run under each division, in every round once, in alternating order.

    A run warms up for as many steps as count. On a CPU every process has one thread.

    Args:
        args: the arguments of `fit`.
        divided: one process first, by which the others are measured.
        rounds: how often each is measured.
        steps: optimizer steps that count.
        weak: whether a batch grows with the groups that share it; else it is the same for all.

    Raises:
        InputError: a run that could not be carried out.
    """
    batch = DryCLI(list(args)).datamodule.batch_size
    batches = {division: batch * division.data if weak else batch for division in divided}
    speeds: dict[Division, list[float]] = {division: [] for division in divided}
    for at in range(rounds):
        for division in divided if at % 2 == 0 else reversed(divided):
            words = [*args, *division.settings, f"--data.batch_size={batches[division]}"]
            speeds[division].append(tokens_per_second(words, steps))
    return {
        "scaling": "weak" if weak else "strong",
        "rounds": rounds,
        "steps": steps,
        "rows": {
            division.name: {
                "strategy": division.strategy,
                "processes": division.processes,
                "batch_size": batches[division],
                "tokens_per_second": speeds[division],
                "median": median(speeds[division]),
                "efficiency": ratio([speed / division.processes for speed in speeds[division]], speeds[divided[0]]),
            }
            for division in divided
        },
    }


def tokens_per_second(words: Sequence[str], steps: int) -> float:
    """The speed of a `fit` with these arguments over its last `steps` steps, in processes of its own.

    Raises:
        InputError: it failed; what it said last.
    """
    with tempfile.TemporaryDirectory() as folder:
        length = [f"--trainer.max_steps={2 * steps}", f"--trainer.log_every_n_steps={steps}"]
        _carry_out([*words, *ALONE, *length, f"--trainer.default_root_dir={folder}/run"])
        rows = whole_rows(Path(folder, "run", "metrics.jsonl"))
    return float(rows[-1]["train/tokens_per_second"])


def _carry_out(words: Sequence[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "ngpt_lab", "fit", *words]
        # A group of its own, since it starts other processes itself.
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code:
            said.seek(0)
            told = said.read().decode(errors="replace").strip().splitlines()
            last = next((line for line in reversed(told) if line.startswith("ngpt-lab: ")), told[-1] if told else "")
            raise InputError(f"a run that was measured ended with exit code {code}: {last.removeprefix('ngpt-lab: ')}")
