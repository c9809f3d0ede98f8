"""What memory tokenizing and reading take: the peak of RssAnon, since the pages of a memory map are the kernel's to take."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

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
    # Commands of their own, as a user starts them: a process that multiprocessing starts is as heavy as the one it comes from.
    source = ["--data=TextDataModule", "--data.source=TextFiles", f"--data.source.files={text}", f"--data.store={store}"]
    peaks = {
        "tokenizing": peak_of(["-m", "ngpt_lab", "tokenize", *source, f"--processes={processes}"]),
        "reading": peak_of(["-c", f"from ngpt_lab.bench.memory import read; read({str(text)!r}, {str(store)!r})"]),
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


def read(text: str, store: str) -> None:
    """Read batches from all over a store."""
    data = TextDataModule(TextFiles(text), store=store, seq_len=1024, batch_size=8)
    for _ in islice(data.train_dataloader(), BATCHES):
        pass


def peak_of(arguments: Sequence[str]) -> float:
    """The largest sum of RssAnon of a Python with these arguments and of all processes that it starts, in bytes."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=said)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.02)
        if process.returncode:
            said.seek(0)
            raise InputError(
                f"what was measured ended with exit code {process.returncode}: {said.read().decode()[-300:].strip()}"
            )
    return float(peak)


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return own + sum(_anonymous(int(child)) for child in children)
