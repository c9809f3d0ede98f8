"""metrics.jsonl: one row a logged step, the source of truth of a run."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ngpt_lab.files import write_atomically, writing

# Every key a language model's row may have; ngpt_lab.training.tasks.metrics has those of tasks. {layer} is two digits,
# {matrix} a matrix's name, {stat} one of STATISTICS.
STATISTICS = ("mean_abs", "q05", "q50", "q95", "negative")
METRICS = {
    "step": "optimizer steps done",
    "tokens": "positions trained on, padding among them",
    "time": "seconds since the start of the run",
    "train/loss": "mean loss of the step's batch, nats per token",
    "train/lr": "learning rate of the step",
    "train/grad_norm": "total gradient norm before clipping",
    "train/clipped_share": "share of all steps so far whose gradient was clipped",
    "train/tokens_per_second": "tokens per second of wall time since the row before",
    "val/loss": "validation loss, nats per token",
    "val/perplexity": "exp of the validation loss",
    "val/bits_per_byte": "validation loss in bits per byte of text",
    "val/accuracy": "share of validation tokens predicted first",
    "val_other/loss": "validation loss of the second text, where training changes between two; nats per token",
    "val_other/perplexity": "exp of that loss",
    "val_other/bits_per_byte": "that loss in bits per byte of text",
    "val_other/accuracy": "share of those tokens predicted first",
    "test/loss": "test loss, nats per token",
    "test/perplexity": "exp of the test loss",
    "test/bits_per_byte": "test loss in bits per byte of text",
    "test/accuracy": "share of test tokens predicted first",
    "eigen/attention_alpha/{layer}/{stat}": "eigen learning rates of the attention sublayer",
    "eigen/mlp_alpha/{layer}/{stat}": "eigen learning rates of the MLP sublayer",
    "scale/s_qk/{layer}/{stat}": "scale of the queries and keys",
    "scale/s_u/{layer}/{stat}": "scale of the MLP's hidden channels",
    "scale/s_v/{layer}/{stat}": "scale of the MLP's gate",
    "scale/s_z/{stat}": "scale of the logits",
    "sphere/weight_error": "largest | ||w|| - 1 | over all stream matrices",
    "sphere/angle/{matrix}": "mean angle the matrix's vectors turned since the row before, degrees",
}


class MetricsFile(Logger):
    """Writes metrics.jsonl, append-only, in the run's folder; the floats are exact.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"
        self.tokens_per_step = 0
        self._start = time.monotonic()

    @property
    def name(self) -> str:
        """No folder of its own inside the run's."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own inside the run's."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, what it took before it was interrupted included."""
        return round(time.monotonic() - self._start, 3)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        values = {key: value for key, value in metrics.items() if key != "epoch"}
        if not values:
            return
        step = step or 0
        row = {"step": step, "tokens": step * self.tokens_per_step, "time": self.seconds, **values}
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), self.path.open("a") as file:
            # JSON has no NaN or infinity; a run that diverged still has readable rows.
            file.write(json.dumps({key: value if math.isfinite(value) else None for key, value in row.items()}) + "\n")

    @rank_zero_only
    def save(self) -> None:
        """Make the rows so far last through a loss of power; see `Logger`."""
        if self.path.exists():
            with writing(self.path), self.path.open("a") as file:
                os.fsync(file.fileno())

    def go_on(self) -> None:
        """Let time go on where the rows that are there end."""
        rows = whole_rows(self.path)
        self._start = time.monotonic() - (rows[-1]["time"] if rows else 0.0)


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a crash can leave the last one half-written, and only whole ones end in a newline."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the rows of a file of JSON lines that `keep` says no to."""
    if path.is_file():
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in whole_rows(path) if keep(row)))
