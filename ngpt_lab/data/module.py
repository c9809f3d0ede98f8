"""The data modules of every model: one text, or two in turn."""

import hashlib
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ngpt_lab.data.corpora import Corpus
from ngpt_lab.data.loader import HeldOutLoader, NumberedBatches, Rank, SwitchingLoader, WindowLoader
from ngpt_lab.data.local_files import local_files
from ngpt_lab.data.order import WindowOrder, evenly_spaced_starts
from ngpt_lab.data.standard_library import standard_library
from ngpt_lab.data.texts import Text
from ngpt_lab.errors import InputError


class WindowDataModule(LightningDataModule):
    """Windows of a corpus of bytes, in an order that depends on the seed and the text alone.

    Batches are pairs of tokens and targets, (batch_size, seq_len) int64 each; a target is the token after.

    Args:
        corpus: what is trained on, validated and tested.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, over all devices.
        seed: Seed of the order of the training windows; separate from the seed of the weights.
        eval_windows: At most so many windows of validation and of test are read, spread evenly.
    """

    vocab_size = 256
    bytes_per_token = 1.0

    def __init__(self, corpus: Corpus, seq_len: int, batch_size: int, seed: int, eval_windows: int) -> None:
        super().__init__()
        for name, value in {"seq_len": seq_len, "batch_size": batch_size, "eval_windows": eval_windows}.items():
            check_at_least_one(name, value)
        self.corpus = corpus
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.eval_windows = eval_windows
        self._check_length(corpus)
        self._announced = False

    @property
    def corpora(self) -> list[Corpus]:
        """Every corpus that is read."""
        return [self.corpus]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the text and of where it is split."""
        return self.corpus.fingerprint

    @property
    def tokens_per_batch(self) -> int:
        """Tokens in a batch, over all devices."""
        return self.batch_size * self.seq_len

    def describe(self) -> dict[str, object]:
        """What a run's record keeps of its data."""
        return {
            **self.corpus.describe(),
            "tokenizer": "bytes",
            "vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "eval_windows": self.eval_windows,
        }

    def setup(self, stage: str) -> None:
        """Say once what is read, and how much of the held-out text also stands in training."""
        for corpus in [] if self._announced else self.corpora:
            shares = ", ".join(
                f"{name} {len(corpus.splits[name]):,} ({share:.2%} of its line starts also stand in training)"
                for name, share in corpus.shared_share.items()
            )
            rank_zero_info(f"Data: {corpus.source}; bytes: train {len(corpus.train):,}, {shares}")
        self._announced = True

    def train_dataloader(self) -> NumberedBatches:
        """Batches without end; batch k depends on k, the seed, the sizes and the text alone."""
        return self._windows(self.corpus)

    def val_dataloader(self) -> HeldOutLoader | list[HeldOutLoader]:
        """Validation's windows: the same ones each time."""
        return self._held_out(self.corpus.validation)

    def test_dataloader(self) -> HeldOutLoader:
        """Test's windows: the same ones each time."""
        return self._held_out(self.corpus.test)

    predict_dataloader = test_dataloader

    def state_dict(self) -> dict[str, Any]:
        """What batch k depends on."""
        return {name: getattr(self, name) for name in ("fingerprint", "seed", "seq_len", "batch_size")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to go on training from a checkpoint whose batches were others; evaluating one on any text is fine."""
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name, now in self.state_dict().items():
            if state_dict[name] != now:
                raise InputError(
                    f"the checkpoint was trained with data.{name} {state_dict[name]} and this run has {now}: "
                    "restore the data and its settings, or start a new run without the checkpoint"
                )

    def _windows(self, corpus: Corpus) -> WindowLoader:
        order = WindowOrder(len(corpus.train), self.seq_len, self.seed, corpus.fingerprint)
        return WindowLoader(corpus.train, order, self.batch_size, self._rank())

    def _held_out(self, stream: Tensor) -> HeldOutLoader:
        starts = evenly_spaced_starts(len(stream), self.seq_len, self.eval_windows)
        return HeldOutLoader(stream, starts, self.seq_len, self.batch_size, self._rank())

    def _rank(self) -> Rank:
        return Rank(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Rank()

    def _check_length(self, corpus: Corpus) -> None:
        name, stream = min(corpus.splits.items(), key=lambda split: len(split[1]))
        if len(stream) <= self.seq_len:
            raise InputError(
                f"--data.seq_len {self.seq_len} is longer than the data: {name}, the shortest split of "
                f"{corpus.source}, has {len(stream)} tokens and a window needs {self.seq_len + 1}"
            )


class TextDataModule(WindowDataModule):
    """Text as bytes, in windows, in an order that depends on the seed and the text alone.

    Args:
        files: Path or glob pattern of .txt or .gz files, or a list of them. Without it the corpus is the source of
            the running Python's standard library.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, over all devices.
        seed: Seed of the order of the training windows; separate from the seed of the weights.
        eval_windows: At most so many windows of validation and of test are read, spread evenly.
    """

    def __init__(
        self,
        files: str | list[str] | None = None,
        seq_len: int = 256,
        batch_size: int = 8,
        seed: int = 0,
        eval_windows: int = 256,
    ) -> None:
        self.files = [files] if isinstance(files, str) else files
        # Read here and not in `setup`: bad text stops a run before it has written anything.
        corpus = standard_library() if self.files is None else local_files(self.files)
        super().__init__(corpus, seq_len, batch_size, seed, eval_windows)

    def describe(self) -> dict[str, object]:
        """See `WindowDataModule`."""
        return {**super().describe(), "files": self.files}


class SwitchingTextDataModule(WindowDataModule):
    """One text, then another, then the first again, and so on; validation reads both, the test split is the first's.

    Batch k is the first text's where k // switch_every is even, and the second's where it is odd, so a run of three times
    `switch_every` batches leaves the first text and comes back to it. Validation of the second text is logged as val_other.

    Args:
        first: The text that training begins with.
        second: The text that it changes to.
        switch_every: Batches until the text changes.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, over all devices.
        seed: Seed of the order of the training windows; separate from the seed of the weights.
        eval_windows: At most so many windows of each held-out split are read, spread evenly.
    """

    def __init__(
        self,
        first: Text,
        second: Text,
        switch_every: int,
        seq_len: int = 256,
        batch_size: int = 8,
        seed: int = 0,
        eval_windows: int = 256,
    ) -> None:
        check_at_least_one("switch_every", switch_every)
        super().__init__(first.read(), seq_len, batch_size, seed, eval_windows)
        self.switch_every = switch_every
        self.other: Corpus = second.read()
        self._check_length(self.other)
        if self.other.fingerprint == self.corpus.fingerprint:
            raise InputError(f"--data.first and --data.second are the same text ({self.corpus.source}): name two")

    @property
    def corpora(self) -> list[Corpus]:
        """Both."""
        return [self.corpus, self.other]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both texts' fingerprints."""
        return hashlib.sha256("".join(corpus.fingerprint for corpus in self.corpora).encode()).hexdigest()

    def describe(self) -> dict[str, object]:
        """See `WindowDataModule`; `other` is the second text."""
        mine = {"fingerprint": self.fingerprint, "other": self.other.describe(), "switch_every": self.switch_every}
        return {**super().describe(), **mine}

    def train_dataloader(self) -> NumberedBatches:
        """Batches of both texts in turn, without end; see `WindowDataModule`."""
        return SwitchingLoader(self._windows(self.corpus), self._windows(self.other), self.switch_every)

    def val_dataloader(self) -> list[HeldOutLoader]:
        """The first text's windows, then the second's."""
        return [self._held_out(corpus.validation) for corpus in self.corpora]

    def state_dict(self) -> dict[str, Any]:
        """See `WindowDataModule`."""
        return {**super().state_dict(), "switch_every": self.switch_every}


def check_at_least_one(name: str, value: int) -> None:
    """Refuse a size below one.

    Raises:
        InputError: names the setting.
    """
    if value < 1:
        raise InputError(f"--data.{name} is {value}: it must be at least 1")
