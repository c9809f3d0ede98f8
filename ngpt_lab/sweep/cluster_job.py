"""What a cluster's job does: one run, under the run's claim, from its last checkpoint."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ngpt_lab.interruption import EXIT_CODE
from ngpt_lab.sweep import separate
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.records import read_rows
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.train import interrupt, prepare, record_failure

FOLDER = "jobs"
# A job that began so often and never came further than it was is not begun again.
FRUITLESS = 10
# Seconds in which this process would be killed as well, where the run's was.
LAG = 3
# Seconds between two looks whether this job's run is still trained elsewhere.
PAUSE = 1.0


class ClusterJob:
    """A run as a cluster's job carries it out, maybe several times, on one machine and then another.

    It does nothing where the run is finished, or somebody else's by now, and waits while the same job still trains it on a
    machine that the cluster has given up, and that lives.

    Args:
        run: the run.
        sweep: the sweep's folder, on a file system that all machines share.
        ticket: by which the run's claim is held until the job has ended.
        environment: variables of the run's processes beside those of this one.
        launcher: what starts the run's processes, where they are on several machines.
    """

    def __init__(
        self,
        run: PlannedRun,
        sweep: Path,
        ticket: str,
        environment: Mapping[str, str] | None = None,
        launcher: tuple[str, ...] = (),
    ) -> None:
        self.run = replace(run, folder=run.folder.absolute())
        self.sweep, self.ticket = sweep.absolute(), ticket
        self.own, self.launcher = dict(environment or {}), launcher
        self.directory = Path.cwd()
        self.trainer = f"{self.run.name}@job"  # the claim of who trains it, of all with the ticket
        self.told = False
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Carry it out."""
        os.chdir(self.directory)  # the run's settings may name files from there
        with Claims(self.sweep / "claims") as claims:
            if self.run.finished or not claims.take(self.run.name, self.ticket):
                print(f"{self.run.name} is finished, or somebody else's")
                return
            try:
                if self._is_alone(claims) and self._begin():
                    self._watch(claims)
            finally:
                self._end_process()
                if not claims.holds(self.trainer):
                    claims.leave(self.run.name)  # to who trains it

    def _is_alone(self, claims: Claims) -> bool:
        """Wait until nobody else trains the run; False where it is finished or somebody else's then."""
        while not claims.take(self.trainer):
            if self.told:
                raise SystemExit(EXIT_CODE)
            if self.run.name in claims.lost():
                return False
            time.sleep(PAUSE)
        return not self.run.finished

    def _begin(self) -> bool:
        """Start the run's processes; False where that was in vain too often."""
        starts = [start for start in self.starts() if start.get("ticket") == self.ticket]
        if starts and self.run.failed:  # as where another machine went away: the cluster would not start what ended by itself
            interrupt(self.run)
        goes_on = prepare(self.run)
        step = newest_step(self.run) if goes_on else 0
        if [start["step"] for start in starts[-FRUITLESS:]] == [step] * FRUITLESS:
            record_failure(
                self.run,
                f"it began {FRUITLESS} times at step {step} and came to no checkpoint before its job's end: "
                "give it more time, or let it save more often (checkpoint.every_minutes)",
            )
            return False
        self._note({"ticket": self.ticket, "step": step, "host": socket.gethostname(), "time": time.time()})
        self.process = separate.start(self.run, goes_on, self.launcher, self.environment())
        return True

    def _watch(self, claims: Claims) -> None:
        """Wait until the run's processes have ended, and judge."""
        assert self.process is not None
        while not has_ended(self.process.pid):
            if claims.lost() & {self.run.name, self.trainer}:
                return  # who holds the run now thinks this one dead
            if self.told:
                self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        code = self.process.wait()
        if self.told and not self.run.finished and not self.run.failed:
            interrupt(self.run)
            raise SystemExit(EXIT_CODE)
        if code == -signal.SIGKILL:
            time.sleep(LAG)
        if (error := separate.what_happened(self.run, code)) is not None:
            record_failure(self.run, error)

    def save_and_end(self) -> None:
        """Let the run save a checkpoint and end; for a signal's handler, at any moment."""
        self.told = True
        while self.process is not None and not has_ended(self.process.pid):
            # Again and again: it hears nothing while it starts.
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)

    def environment(self) -> dict[str, str]:
        """Of the run's processes; lightning would take charge of the job's signals where it sees SLURM."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
        return (dict(os.environ) if self.launcher else kept) | self.own

    def starts(self) -> list[dict[str, Any]]:
        """Every time that a job began the run, and at which step."""
        return read_rows(self._log)[0]

    @property
    def _log(self) -> Path:
        return self.sweep / FOLDER / f"{self.run.name}.jsonl"

    def _note(self, start: dict[str, Any]) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as file:
            file.write(json.dumps(start) + "\n")

    def _end_process(self) -> None:
        if self.process is not None and not has_ended(self.process.pid):
            self.process.kill()
            self.process.wait()


def has_ended(process: int) -> bool:
    """Whether a child process has ended; unlike Popen's, for use in a signal's handler too."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def newest_step(run: PlannedRun) -> int:
    """The step of the checkpoint that a run goes on from."""
    from ngpt_lab.training.checkpoints import step_files

    return max(step_files(run.folder), default=0)
