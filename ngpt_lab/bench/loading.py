"""How fast windows are read, against how fast the 1m model takes them in: turns in one process, one thread."""

import time
from collections.abc import Sequence
from itertools import islice
from statistics import median
from typing import Any

import torch

from ngpt_lab.bench.arm import Arm, load
from ngpt_lab.bench.timing import ratio
from ngpt_lab.training.arms import DEFAULT_BASELINE, arm_arguments, default_arms

LENGTH = ("--data.seq_len=1024", "--data.batch_size=8")
BATCHES = 1000


def measure_loading(rounds: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Tokens a second of the loader alone and of training steps of the 1m baseline on its batches.

    Args:
        rounds: how many pairs.
        settings: settings of `fit` for the data, after length 1024 and batch 8.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cli = load([*arm_arguments(default_arms()[DEFAULT_BASELINE]), *LENGTH, *settings])
        arm = Arm(cli, torch.device("cpu"), compiled=False)
        batches = iter(cli.datamodule.train_dataloader())
        arm.step()
        list(islice(batches, BATCHES))  # from a warm store
        pairs = [(_loading(batches, arm.tokens), _training(arm)) for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    loader, model = (list(side) for side in zip(*pairs, strict=True))
    return {
        "unit": "tokens/s",
        "ours": {"what": "loader alone", "rates": loader, "median": median(loader)},
        "against": {"what": "a training step of the 1m model", "rates": model, "median": median(model)},
        "ratio": ratio(loader, model),
    }


def _loading(batches: Any, tokens: int) -> float:
    start = time.perf_counter()
    for _ in islice(batches, BATCHES):
        pass
    return BATCHES * tokens / (time.perf_counter() - start)


def _training(arm: Arm) -> float:
    start = time.perf_counter()
    arm.step()
    return arm.tokens / (time.perf_counter() - start)
