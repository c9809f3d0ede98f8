"""What SLURM has in its queue of this user's, without its accounting, which not every cluster keeps."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from ngpt_lab.errors import InputError

# Seconds for which an answer is good: squeue is a burden to the cluster.
FRESH = 4.0
PATIENCE = 60


class Listed(NamedTuple):
    """What squeue says of a job."""

    state: str
    comment: str


class SlurmQueue:
    """The jobs that wait or run.

    Raises:
        InputError: squeue fails at the first time.
    """

    def __init__(self) -> None:
        self._jobs, self._asked = ask(), time.monotonic()

    def states(self) -> Mapping[str, str]:
        """Each job that has not ended, as 12 or in an array 12_3, with its state; as before where SLURM does not answer."""
        if time.monotonic() - self._asked > FRESH:
            with suppress(InputError):  # its controller may be away for a while; what it started goes on
                self._jobs = ask()
            self._asked = time.monotonic()
        return {job: listed.state for job, listed in self._jobs.items()}

    def find(self, comment: str | None, place: int | None) -> str | None:
        """The job that was submitted with a comment, alone or at this place of an array; None where it is not in the queue."""
        self.states()
        found = (job for job, listed in self._jobs.items() if listed.comment == comment)
        return next((job for job in found if job.partition("_")[2] in ("", str(place))), None)

    def forget(self) -> None:
        """Ask anew at the next look."""
        self._asked = -FRESH


def ask() -> dict[str, Listed]:
    """Ask squeue.

    Raises:
        InputError: it fails, or does not answer.
    """
    command = ["squeue", "--noheader", "--array", "--all", "--me", "--format=%F|%K|%T|%k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except subprocess.CalledProcessError as error:
        raise InputError(f"SLURM does not answer: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"SLURM does not answer: {error}") from error
    return jobs_in(done.stdout)


def jobs_in(listing: str) -> dict[str, Listed]:
    """The jobs in what squeue prints, a line for each job of an array."""
    found = {}
    for line in listing.splitlines():
        job, index, state, comment, *_ = [*line.strip().split("|", 3), "", "", ""]
        if job.isdecimal():  # else it is more of the comment of somebody's job
            found[f"{job}_{index}" if index.isdecimal() else job] = Listed(state, comment)
    return found


def cancel(job: str) -> None:
    """End a job; one that is over is left so, and where SLURM does not answer nothing happens."""
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["scancel", job], capture_output=True, timeout=PATIENCE, check=False)
