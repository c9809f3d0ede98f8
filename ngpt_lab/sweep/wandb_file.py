"""A specification as a Weights & Biases sweep."""

from typing import Any

from ngpt_lab.sweep.plan import Sweep


def wandb_file(sweep: Sweep) -> dict[str, Any]:
    """The content of a sweep file whose agents carry out the final runs, and the trials these need, one `--run` at a time.

    Every run logs to wandb if the configs ask for its logger, grouped by sweep and tagged with base, ablation and condition.
    """
    return {
        "name": sweep.spec.name,
        "description": sweep.spec.question,
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {"run": {"values": [run.name for run in sweep.finals]}},
        "command": ["ngpt-lab", "sweep", str(sweep.spec.path), "--out", str(sweep.folder), "${args}"],
    }
