"""What of the strategies concerns the command line: their names, building on the meta device, ending with the first process."""

import os
import threading
import time
from functools import cache
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.strategies import StrategyRegistry

from ngpt_lab.training.parallel.strategy import Sharded

NAMED: dict[str, dict[str, Any]] = {
    "fsdp2": {},
    "tp": {"tensor_parallel_size": "auto", "fully_sharded": False},
    "fsdp2+tp": {"tensor_parallel_size": 2},
}
# What a process ends with when the one that started it is gone.
ORPHANED = 1
# Where the first process tells those that lightning starts its own number.
FIRST = "NGPT_LAB_FIRST_PROCESS"


def register() -> None:
    """Let --trainer.strategy name them."""
    for name, settings in NAMED.items():
        StrategyRegistry.register(name, Sharded, description=name, override=True, **settings)


def is_distributing(strategy: Any) -> bool:
    """Whether what a config says of the strategy is one that gives every process a piece of the model."""
    if isinstance(strategy, Namespace | dict):
        return str(strategy.get("class_path", "")).rpartition(".")[2] == Sharded.__name__
    return strategy in NAMED or isinstance(strategy, Sharded)


@cache
def end_with_parent(every: float = 1.0) -> None:
    """Where lightning started this process for a run of several, end it when the first is gone; once in a process.

    Otherwise it may wait for that one's part of a sum for as long as the group's timeout.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[FIRST] = str(os.getpid())
        return
    # As the first one told it: by now it may have ended. Others that start processes, which are not the first, set RANK.
    parent = os.getppid() if "RANK" in os.environ else int(os.environ.get(FIRST, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(ORPHANED)

    if os.environ["LOCAL_RANK"] != "0":
        threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


register()
