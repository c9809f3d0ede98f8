"""The one data module of every model."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ngpt_lab.data.corpora import Corpus
from ngpt_lab.data.loader import HeldOutLoader, Rank, WindowLoader
from ngpt_lab.data.local_files import local_files
from ngpt_lab.data.order import WindowOrder, evenly_spaced_starts
from ngpt_lab.data.standard_library import standard_library
from ngpt_lab.errors import InputError


class TextDataModule(LightningDataModule):
    """Text as bytes, in windows, in an order that depends on the seed and the text alone.

    Batches are pairs of tokens and targets, (batch_size, seq_len) int64 each; a target is the token after.

    Args:
        files: Path or glob pattern of .txt or .gz files, or a list of them. Without it the corpus is the source of
            the running Python's standard library.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, over all devices.
        seed: Seed of the order of the training windows; separate from the seed of the weights.
        eval_windows: At most so many windows of validation and of test are read, spread evenly.
    """

    vocab_size = 256
    bytes_per_token = 1.0

    def __init__(
        self,
        files: str | list[str] | None = None,
        seq_len: int = 256,
        batch_size: int = 8,
        seed: int = 0,
        eval_windows: int = 256,
    ) -> None:
        super().__init__()
        for name, value in {"seq_len": seq_len, "batch_size": batch_size, "eval_windows": eval_windows}.items():
            if value < 1:
                raise InputError(f"--data.{name} is {value}: it must be at least 1")
        self.files = [files] if isinstance(files, str) else files
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self.eval_windows = eval_windows
        # Read here and not in `setup`: bad text stops a run before it has written anything.
        self.corpus: Corpus = standard_library() if self.files is None else local_files(self.files)
        self._check_length()
        self._announced = False

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
            "files": self.files,
            "tokenizer": "bytes",
            "vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "eval_windows": self.eval_windows,
        }

    def setup(self, stage: str) -> None:
        """Say once what is read, and how much of the held-out text also stands in training."""
        if not self._announced:
            shares = ", ".join(
                f"{name} {len(self.corpus.splits[name]):,} ({share:.2%} of its line starts also stand in training)"
                for name, share in self.corpus.shared_share.items()
            )
            rank_zero_info(f"Data: {self.corpus.source}; bytes: train {len(self.corpus.train):,}, {shares}")
        self._announced = True

    def train_dataloader(self) -> WindowLoader:
        """Batches without end; batch k depends on k, the seed, the sizes and the text alone."""
        order = WindowOrder(len(self.corpus.train), self.seq_len, self.seed, self.fingerprint)
        return WindowLoader(self.corpus.train, order, self.batch_size, self._rank())

    def val_dataloader(self) -> HeldOutLoader:
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

    def _held_out(self, stream: Tensor) -> HeldOutLoader:
        starts = evenly_spaced_starts(len(stream), self.seq_len, self.eval_windows)
        return HeldOutLoader(stream, starts, self.seq_len, self.batch_size, self._rank())

    def _rank(self) -> Rank:
        return Rank(self.trainer.global_rank, self.trainer.world_size) if self.trainer else Rank()

    def _check_length(self) -> None:
        name, stream = min(self.corpus.splits.items(), key=lambda split: len(split[1]))
        if len(stream) <= self.seq_len:
            raise InputError(
                f"--data.seq_len {self.seq_len} is longer than the data: {name}, the shortest split of "
                f"{self.corpus.source}, has {len(stream)} tokens and a window needs {self.seq_len + 1}"
            )
