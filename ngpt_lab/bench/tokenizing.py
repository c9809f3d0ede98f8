"""How fast text becomes a token store, against `datasets.map` with the same tokenizer and as many processes, in turns."""

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ngpt_lab.bench.timing import ratio
from ngpt_lab.data import BPE, TokenizerFile
from ngpt_lab.data.sources.source import SPLITS, TextSource
from ngpt_lab.data.store import build


def measure_tokenizing(source: TextSource, rounds: int, processes: int, vocab_size: int) -> dict[str, Any]:
    """Megabytes of text a second, from text to a checked store on our side, through `map` alone on theirs.

    Args:
        source: the text, all of which must fit in memory.
        rounds: how many pairs.
        processes: processes on each side.
        vocab_size: of the byte pairs, which are trained before the clock starts.
    """
    texts = [piece.text.decode() for split in SPLITS for piece in source.pieces(split)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        BPE(vocab_size).encoder(source).save(folder)
        pairs = [
            (megabytes / _ours(source, folder, processes), megabytes / _theirs(texts, folder, processes)) for _ in range(rounds)
        ]
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    return {
        "unit": "MB/s",
        "ours": {"what": f"tokenize, {processes} processes", "rates": ours, "median": median(ours)},
        "against": {"what": f"datasets.map, {processes} processes", "rates": theirs, "median": median(theirs)},
        "ratio": ratio(ours, theirs),
    }


def _ours(source: TextSource, folder: Path, processes: int) -> float:
    start = time.perf_counter()
    build(source, TokenizerFile(str(folder / "tokenizer.json")), folder / "store", processes)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder / "store")
    return seconds


def _theirs(texts: list[str], folder: Path, processes: int) -> float:
    import datasets
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    datasets.disable_progress_bars()
    # The clock is on their side: rows in memory, and no file but what map itself writes.
    rows = datasets.Dataset.from_dict({"text": texts}, features=datasets.Features({"text": datasets.Value("large_string")}))
    start = time.perf_counter()
    rows.map(
        lambda batch: {"tokens": [encoding.ids for encoding in tokenizer.encode_batch_fast(batch["text"])]},
        batched=True,
        batch_size=100,
        num_proc=processes if processes > 1 else None,
        remove_columns="text",
        features=datasets.Features({"tokens": datasets.List(datasets.Value("uint16"))}),
    )
    return time.perf_counter() - start
