"""Making a store, so that a process that is killed leaves what the next one goes on with."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.corpora import SPLITS
from ngpt_lab.data.encoders import TOKENIZER_JSON, Encoder
from ngpt_lab.data.store.bar import Bar
from ngpt_lab.data.store.encoding import Encoding
from ngpt_lab.data.store.feed import Feed
from ngpt_lab.data.store.lines import read_lines, shares, write_lines
from ngpt_lab.data.store.lock import locked
from ngpt_lab.data.store.manifest import DTYPES, Manifest, TokenizerRecord, check_sizes, shard_name
from ngpt_lab.data.store.opening import is_finished, open_store
from ngpt_lab.data.store.place import check_source, read_source, record_source, renew_source, store_folder
from ngpt_lab.data.store.progress import PROGRESS, Progress, SplitProgress
from ngpt_lab.data.store.workers import encoded
from ngpt_lab.data.store.writing import write_split
from ngpt_lab.errors import InputError
from ngpt_lab.files import sync_folder, writing

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import TextSource
    from ngpt_lab.data.tokenizers import Tokenizer

SHARD_TOKENS = 2**26
# Training comes last: what is looked for in it is known then.
ORDER = ("test", "validation", "train")


def build(
    source: "TextSource",
    tokenizer: "Tokenizer | None" = None,
    folder: Path | None = None,
    processes: int = 1,
    shard_tokens: int = SHARD_TOKENS,
) -> Path:
    """Tokenize a source into a folder, or go on with it, or find it done; the folder.

    While it is made it lies in a folder beside, called *.partial.

    Args:
        source: the text.
        tokenizer: bytes where it is left out.
        folder: `default_folder` where it is left out.
        processes: how many tokenize; 1 is this one alone.
        shard_tokens: tokens in a file.

    Raises:
        InputError: what stands in the source or the folder is not as it should be.
    """
    from ngpt_lab.data.tokenizers import Bytes

    for name, value in {"processes": processes, "shard_tokens": shard_tokens}.items():
        if value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")
    tokenizer = tokenizer or Bytes()
    folder = store_folder(source, tokenizer, folder)
    if not is_finished(folder) or partial_of(folder).exists():
        with locked(folder), ending_on_sigterm():
            if not is_finished(folder):
                check_free(folder)
                Building(source, tokenizer, folder, processes, shard_tokens).run()
            shutil.rmtree(partial_of(folder), ignore_errors=True)
    renew_source(source, folder)
    open_store(source, tokenizer, folder)
    return folder


class Building:
    """One process's work on a store; see `build`."""

    def __init__(self, source: "TextSource", tokenizer: "Tokenizer", folder: Path, processes: int, shard_tokens: int) -> None:
        self.source, self.tokenizer, self.folder = source, tokenizer, folder
        self.processes, self.shard_tokens = processes, shard_tokens
        self.partial = partial_of(folder)
        self.store = self.partial / "store"
        self.path = self.partial / PROGRESS

    def run(self) -> None:
        """Make what is missing; what is refused before any token was made leaves nothing."""
        try:
            self.make_all()
        except InputError:
            if not self.path.exists() or Progress.read(self.path).is_empty:
                shutil.rmtree(self.partial, ignore_errors=True)
            raise

    def make_all(self) -> None:
        """Begin or go on, to the end."""
        with writing(self.store):
            if not self.path.exists():  # of another source or tokenizer, perhaps
                shutil.rmtree(self.store, ignore_errors=True)
            self.store.mkdir(parents=True, exist_ok=True)
            for half in self.partial.rglob(".*.tmp"):  # another process was writing them when it was killed
                half.unlink()
        self.encoder, self.progress = self.go_on() if self.path.exists() else self.begin()
        with one_thread(), Bar() as bar:
            for split in ORDER:
                if split not in self.progress.done:
                    self.make(split, bar)
        self.finish()

    def begin(self) -> tuple[Encoder, Progress]:
        """Train or load the tokenizer, and write down what is made."""
        record_source(self.source, self.tokenizer, self.store)
        encoder = self.tokenizer.encoder(self.source)
        encoder.save(self.store)
        progress = Progress(encoder.fingerprint, self.shard_tokens)
        progress.write(self.path)
        return encoder, progress

    def go_on(self) -> tuple[Encoder, Progress]:
        """What another process has begun; anew where that is something else, of which no token was made.

        Raises:
            InputError: it is damaged, or something else.
        """
        progress = Progress.read(self.path)
        try:
            return self.restore(progress), progress
        except InputError:
            if not progress.is_empty:
                raise
            (self.store / TOKENIZER_JSON).unlink(missing_ok=True)
            return self.begin()

    def restore(self, progress: Progress) -> Encoder:
        """The encoder of what another process has begun; see `go_on`."""
        check_source(self.source, self.tokenizer, read_source(self.store), self.partial)
        if progress.shard_tokens != self.shard_tokens:
            raise InputError(
                f"{self.partial} holds an unfinished store with {progress.shard_tokens} tokens a shard: go on with as many, or "
                f"remove {self.partial} to begin anew"
            )
        encoder = self.tokenizer.restore(self.store)
        if encoder.fingerprint != progress.encoder:
            raise InputError(f"the tokenizer in {self.store} is not the one its tokens are of: remove {self.partial}")
        self.check_shards(progress, DTYPES[encoder.dtype])
        return encoder

    def check_shards(self, progress: Progress, width: int) -> None:
        """Refuse shards that are not as large as they were."""
        splits: dict[str, Any] = {**progress.done, **({progress.now.split: progress.now} if progress.now else {})}
        for split, found in splits.items():
            sizes = {shard_name(split, number): width * shard.tokens for number, shard in enumerate(found.shards)}
            check_sizes(self.store, sizes, self.partial)

    def make(self, split: str, bar: Bar) -> None:
        """Make what is missing of a split."""
        now = self.progress.now
        if now is None or now.split != split:
            now = self.progress.now = SplitProgress(split)
        wanted = self.wanted() if split == "train" else None
        total = self.source.expected(split)
        pieces = self.source.pieces(split, now.piece)
        with closing(encoded(pieces, Encoding(self.encoder, wanted), self.processes)) as batches:
            feed = Feed(batches, now, samples=wanted is None)
            record = write_split(
                self.store,
                self.partial / "begun",
                now,
                feed,
                self.shard_tokens,
                lambda size, tokens: bar.show(split, size, tokens, total),
                lambda: self.progress.write(self.path),
            )
        write_lines(self.lines(split), now.lines)
        self.progress.done[split], self.progress.now = record, None
        self.progress.write(self.path)

    def wanted(self) -> frozenset[bytes]:
        """The held-out line starts that training is searched for."""
        return frozenset().union(*(read_lines(self.lines(split)) for split in ORDER[:-1]))

    def lines(self, split: str) -> Path:
        """Where the line starts found in a split are kept."""
        return self.partial / f"{split}.lines.json"

    def finish(self) -> None:
        """Write the manifest, and give the folder its name."""
        lines = {split: read_lines(self.lines(split)) for split in SPLITS}
        found = lines.pop("train")
        encoder = self.encoder
        tokenizer = TokenizerRecord(encoder.name, encoder.fingerprint, encoder.vocab_size, encoder.separator)
        done = {split: self.progress.done[split] for split in SPLITS}
        manifest = Manifest(tokenizer, encoder.dtype, self.shard_tokens, done, shares(lines, found))
        manifest.write(self.store)
        with writing(self.folder):
            os.replace(self.store, self.folder)
            sync_folder(self.folder.parent)


def partial_of(folder: Path) -> Path:
    """Where a store lies until it is finished."""
    return folder.with_name(f"{folder.name}.partial")


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        InputError: it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and holds no tokens: name another folder with --data.store")


@contextmanager
def one_thread() -> Iterator[None]:
    """The tokenizers library uses the thread that calls it; there is a process for every core."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the work in good order, where nobody else listens to it."""
    listens = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if listens:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        if listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
