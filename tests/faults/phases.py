"""What tells the test where a run is, and dwells there so that a kill finds it.

A run is told to take the callback `Tells`; `tokenize` is carried out by `phases.tokenize()`.
"""

import functools
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch import Callback, Trainer

from ngpt_lab.data.store import building, workers, writing
from ngpt_lab.training import checkpoints

PHASE, AT, MARKER = os.environ["PHASE"], int(os.environ["PHASE_AT"]), Path(os.environ["PHASE_MARKER"])
DWELL = 0.01
# Where it is given, tokens lie in many shards, and several processes make them however little text there is.
SHARD_TOKENS = int(os.environ.get("SHARD_TOKENS", 0))


class Tells(Callback):
    """Touches the marker when the phase begins for the time numbered AT; another phase is another hook that calls `now`."""

    def __init__(self) -> None:
        self.counted = 0
        if PHASE == "saving":
            checkpoints.write = self.write_slowly
        if SHARD_TOKENS:
            self.watch_tokenizing()

    def now(self, phase: str) -> None:
        """Tell that a phase begins, where it is the one that is waited for."""
        if phase != PHASE:
            return
        self.counted += 1
        if self.counted > AT:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                MARKER.touch()
            time.sleep(DWELL)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """A micro-batch of training."""
        self.now("training")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """The optimizer's step."""
        self.now("stepping")

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """A batch of validation, whether within the fit or after it."""
        self.now("validating")

    def watch_tokenizing(self) -> None:
        """A store that is begun, a shard, the end of a split, and the end of the store."""
        workers.ALONE_SECONDS, workers.BATCH_BYTES, workers.BATCH_PIECES = 0, 5_000, 100
        building.build.__defaults__ = (*(building.build.__defaults__ or ())[:-1], SHARD_TOKENS)
        for home, name in [
            (building.Building, "begin"),
            (writing, "write_shard"),
            (writing, "join_starts"),
            (building.Building, "finish"),
        ]:
            setattr(home, name, self.told(getattr(home, name)))

    def told(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The same step of tokenizing, told."""

        @functools.wraps(step)
        def now(*arguments: Any) -> Any:
            self.now("tokenizing")
            return step(*arguments)

        return now

    def write_slowly(self, checkpoint: dict[str, Any], file: IO[bytes]) -> None:
        """Write a checkpoint piece by piece."""
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        content = whole.getbuffer()
        for start in range(0, len(content), 2**16):
            file.write(content[start : start + 2**16])
            self.now("saving") if start == 0 else time.sleep(DWELL if self.counted > AT else 0)


def tokenize() -> None:
    """Carry out the command line of `ngpt-lab tokenize`."""
    from ngpt_lab.cli import main

    Tells()
    main()
