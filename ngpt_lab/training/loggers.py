"""Which loggers a run has."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

from ngpt_lab.training.metrics_file import MetricsFile


def run_loggers(asked: Any, folder: Path, purge_step: int | None) -> list[Logger]:
    """metrics.jsonl always, TensorBoard where it is installed and without what a run goes back on, and what is asked for."""
    loggers: list[Logger] = [MetricsFile(folder)]
    if RequirementCache("tensorboard") and asked is not False:
        loggers.append(TensorBoardLogger(str(folder), name="", version="tensorboard", purge_step=purge_step))
    return loggers + [logger for logger in as_list(asked) if isinstance(logger, Logger)]


def as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, several, or nothing."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


@contextmanager
def write_errors_told_once() -> Iterator[None]:
    """TensorBoard writes in a thread, whose errors its next call raises again: they are not printed as well."""
    before = threading.excepthook

    def told(error: threading.ExceptHookArgs) -> None:
        if not (isinstance(error.exc_value, OSError) and type(error.thread).__name__ == "_AsyncWriterThread"):
            before(error)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = before
