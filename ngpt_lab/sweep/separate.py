"""A run in a process of its own, from which lightning starts those of its other devices by calling the same program again.

The program is `python -m ngpt_lab.sweep.separate RUN`. None of its processes outlives who started it.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ngpt_lab.errors import InputError
from ngpt_lab.interruption import EXIT_CODE, Interrupted, Signals
from ngpt_lab.sweep.lifetime import STARTER, end_with
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.train import fit, record_failure

FAILED = 1


def start(
    run: PlannedRun, goes_on: bool, launcher: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start the processes of a run whose folder is ready (`ngpt_lab.sweep.train.prepare`).

    Args:
        run: the run.
        goes_on: from its last checkpoint.
        launcher: what starts the program, as srun does on several nodes; the processes are its to start then.
        environment: theirs; by default this process's.
    """
    told = json.dumps({"goes_on": goes_on, "run": {**asdict(run), "folder": str(run.folder)}})
    paths = os.pathsep.join(path for path in sys.path if path)
    starter = {} if launcher else {STARTER: str(os.getpid())}
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "ngpt_lab.sweep.separate", told],
        env={**(os.environ if environment is None else environment), "PYTHONPATH": paths, **starter},
        stdin=subprocess.DEVNULL,
    )


def what_happened(run: PlannedRun, code: int) -> str | None:
    """Why a run whose processes have ended is not finished, by its record or else their exit code; None where it is."""
    if run.finished:
        return None
    return str(run.record().get("error")) if run.failed else cause_of_death(code)


def cause_of_death(code: int | None) -> str:
    """What the exit code of a process that did not end by itself says."""
    if code is None or code >= 0:
        return f"its process ended (exit code {code})"
    return f"its process was killed (signal {-code}{': out of memory?' if code == -signal.SIGKILL else ''})"


def main(told: str) -> int:
    """What each process does; returns its exit code. The first of them records a failure."""
    end_with(int(os.environ.get(STARTER, os.getppid())))
    os.environ[STARTER] = str(os.getpid())  # lightning starts the others from here
    content = json.loads(told)
    run = PlannedRun(**{**content["run"], "folder": Path(content["run"]["folder"])})
    take_rank_of_srun()
    with Signals() as signals:
        try:
            fit(run, content["goes_on"], signals)
        except Interrupted:
            return EXIT_CODE
        except Exception as error:
            if is_first():
                record_failure(run, str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
            traceback.print_exc()
            return FAILED
    return 0


def take_rank_of_srun() -> None:
    """Tell lightning which process this is of those that srun started; its own way to ask SLURM would requeue the job too."""
    if "TORCHELASTIC_RUN_ID" in os.environ and "RANK" not in os.environ:
        for name, of_slurm in {"RANK": "PROCID", "LOCAL_RANK": "LOCALID", "GROUP_RANK": "NODEID"}.items():
            os.environ[name] = os.environ[f"SLURM_{of_slurm}"]


def is_first() -> bool:
    """Whether this is the first process of its run."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
