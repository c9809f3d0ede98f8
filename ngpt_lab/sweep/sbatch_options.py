"""The further options of sbatch that a user may give."""

from collections.abc import Mapping

from ngpt_lab.errors import InputError

# Options of sbatch that our own settings decide, and those that finding and requeueing a job depends on.
OURS = {
    "time": "executor.minutes",
    "partition": "executor.partition",
    "account": "executor.account",
    "qos": "executor.qos",
    "cpus-per-task": "executor.cpus",
    "nodes": "trainer.num_nodes",
    "ntasks": "trainer.devices",
    "ntasks-per-node": "trainer.devices",
    "signal": "executor.notice",
}
RESERVED = ("array", "comment", "error", "no-requeue", "open-mode", "output", "requeue", "wrap")


def options(sbatch: Mapping[str, bool | int | str]) -> dict[str, bool | int | str]:
    """Options of sbatch by their own names, less those that are off.

    Raises:
        InputError: one that is not free.
    """
    named = {name.lstrip("-").replace("_", "-"): value for name, value in sbatch.items()}
    for name in named:
        if name in OURS:
            raise InputError(f"executor.sbatch.{name} is set by {OURS[name]}: set that")
        if name in RESERVED:
            raise InputError(f"executor.sbatch.{name} is the executor's own, by which it finds and requeues jobs: leave it out")
    return {name: value for name, value in named.items() if value is not False}
