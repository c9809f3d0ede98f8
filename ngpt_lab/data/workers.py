"""Processes that read ahead."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from typing import TypeVar

import torch
from torch.utils.data import DataLoader

from ngpt_lab.errors import InputError

Read = TypeVar("Read")


def read_ahead(numbers: Sequence[int], read: Callable[[int], Read], num_workers: int) -> Iterator[Read]:
    """What `read` makes of each of the numbers, in their order; its processes end with the iterator.

    Args:
        numbers: what is read, in this order.
        read: reads one; it is sent to the processes, so it must be small when it is pickled.
        num_workers: how many processes read.

    Raises:
        InputError: what `read` raised.
    """
    loader: DataLoader[Read | InputError] = DataLoader(
        numbers,  # type: ignore[arg-type]  # a sequence does for a Dataset
        batch_size=None,
        collate_fn=partial(_read_or_say, read),
        num_workers=num_workers,
        multiprocessing_context=_processes(),
        worker_init_fn=_begin,
        # Its own, or starting would draw from the random numbers that dropout draws from.
        generator=torch.Generator(),
    )
    batches = iter(loader)
    end, forget = batches._shutdown_workers, atexit.unregister  # type: ignore[attr-defined]
    # What the interpreter does at its end waits for processes that do not hear it.
    atexit.register(end)
    try:
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            yield batch
    finally:
        forget(end)
        end()


def _processes() -> ForkServerContext:
    """Copies of a process that has imported this package and nothing else: one of the trainer has locks of its threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    # Python 3.11 looks in the current folder first, where another copy of this package may lie.
    same = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {name: os.environ.get(name) for name in same}
    # A terminal and a cluster send signals to every process of a run. The trainer saves first, and needs batches for that.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
    os.environ.update(same)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _read_or_say(read: Callable[[int], Read], number: int) -> Read | InputError:
    # Raised here, its sentence would arrive with this process's traceback in it.
    try:
        return read(number)
    except InputError as error:
        return error


def _begin(_worker: int) -> None:
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    # A process that is killed cannot end the ones it started.
    if (trainer := multiprocessing.parent_process()) is not None:
        trainer.join()
        os._exit(1)
