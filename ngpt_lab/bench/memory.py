"""What memory tokenizing and reading take: the peak of RssAnon, since the pages of a memory map are the kernel's to take."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ngpt_lab.data import TextDataModule, TextFiles
from ngpt_lab.errors import InputError

BATCHES = 5000
LINE = 64


def measure_memory(megabytes: Sequence[int], processes: int, into: Path | None = None) -> list[dict[str, float]]:
    """Bytes of each made text's store, and the peaks while it is tokenized and while windows of it are read.

    Args:
        megabytes: of each text.
        processes: how many tokenize.
        into: where texts and stores go for the time.
    """
    if not Path("/proc/self/status").exists():
        raise InputError("bench memory reads /proc, which this system does not have: run it on Linux")
    with tempfile.TemporaryDirectory(dir=into) as folder:
        return [_measure(Path(folder, str(size)), size, processes) for size in megabytes]


def _measure(folder: Path, megabytes: int, processes: int) -> dict[str, float]:
    folder.mkdir()
    text, store = folder / "made.txt", folder / "store"
    make_text(text, megabytes)
    peaks = {
        "tokenizing": peak_of(tokenize, text, store, processes),
        "reading": peak_of(read, text, store),
    }
    return {"store": float(sum(file.stat().st_size for file in store.iterdir())), **peaks}


def make_text(path: Path, megabytes: int) -> None:
    """Lines of random letters."""
    draw = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(megabytes):
            lines = draw.integers(97, 123, (10**6 // LINE, LINE), np.uint8)
            lines[:, -1] = 10
            file.write(lines.tobytes())


def tokenize(text: Path, store: Path, processes: int) -> None:
    """Make the store."""
    TextDataModule(TextFiles(str(text)), store=str(store), processes=processes).prepare_data()


def read(text: Path, store: Path) -> None:
    """Read batches from all over it."""
    data = TextDataModule(TextFiles(str(text)), store=str(store), seq_len=1024, batch_size=8)
    for _ in islice(data.train_dataloader(), BATCHES):
        pass


def peak_of(work: Callable[..., None], *arguments: Any) -> float:
    """The largest sum of RssAnon of a process that does the work and of all that it starts, in bytes."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, _anonymous(process.pid or 0))
        time.sleep(0.02)
    if process.exitcode:
        raise InputError(f"the process that was measured ended with exit code {process.exitcode}")
    return float(peak)


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return own + sum(_anonymous(int(child)) for child in children)
