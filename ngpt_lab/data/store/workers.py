"""Batches of pieces through parallel processes, in order."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.store.encoding import Encoded, Encoding
from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import Piece

BATCH_BYTES = 2**20
# A document of a few words costs more than its bytes.
BATCH_PIECES = 2**13
# Starting processes costs most of a second: what this one encodes at once needs none.
ALONE_SECONDS = 0.25

_encoding: Encoding


def encoded(pieces: Iterable["Piece"], encoding: Encoding, processes: int) -> Generator[Encoded, None, None]:
    """Pieces as tokens, in their order, some at a time.

    Raises:
        InputError: a process died.
    """
    waiting = batches(pieces)
    alone = 0.0
    for batch in waiting:
        if processes > 1 and alone >= ALONE_SECONDS:
            yield from in_parallel(chain([batch], waiting), encoding, processes)
            return
        start = time.perf_counter()
        done = encoding(batch)
        alone += time.perf_counter() - start
        yield done


def batches(pieces: Iterable["Piece"]) -> Iterator[list["Piece"]]:
    """Pieces in lists of about a megabyte."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.text)
        if size >= BATCH_BYTES or len(batch) >= BATCH_PIECES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def in_parallel(waiting: Iterable[list["Piece"]], encoding: Encoding, processes: int) -> Generator[Encoded, None, None]:
    """Batches as tokens; at most two for each process are under way."""
    # Not forked: a fork copies the locks of torch's threads, but not the threads that would open them.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (encoding,))
    running: deque[Future[Encoded]] = deque()
    try:
        for batch in waiting:
            with nameless_main():
                running.append(pool.submit(_encode, batch))
            if len(running) >= 2 * processes:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that tokenizes died, perhaps for lack of memory: the same command goes on where it stopped, and with "
            "fewer processes it takes less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def nameless_main() -> Iterator[None]:
    """Processes that start within do not import the script that runs: without a guard it would begin anew in each."""
    main = sys.modules["__main__"].__dict__
    before: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None  # what multiprocessing would tell them to import
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(before)


def _begin(encoding: Encoding) -> None:
    global _encoding
    _encoding = encoding
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches every process of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A process that is killed cannot end the ones it started.
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _encode(batch: list["Piece"]) -> Encoded:
    return _encoding(batch)
