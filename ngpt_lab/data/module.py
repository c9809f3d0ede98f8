"""The data module of every model."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from ngpt_lab.data.corpora import Corpus, Stream
from ngpt_lab.data.loader import HeldOutLoader, NumberedBatches, WindowLoader
from ngpt_lab.data.replayed import ReplayedDataModule, check_at_least
from ngpt_lab.data.sources.library import StandardLibrary
from ngpt_lab.data.sources.source import Source
from ngpt_lab.data.tokenizers import Tokenizer
from ngpt_lab.data.windows import AcrossDocuments, Windows, WindowsFactory
from ngpt_lab.errors import InputError
from ngpt_lab.machine import cores


class WindowDataModule(ReplayedDataModule):
    """Windows of tokens, in an order that depends on the seed and the tokens alone.

    Nothing is read before `prepare_data`, which turns text into tokens where that has not been done.

    Args:
        sources: Where the texts come from.
        tokenizer: How text becomes tokens; by default its bytes.
        store: Folder of the tokens; by default one in the user's cache.
        windows: How windows are laid over the tokens: AcrossDocuments, MaskedDocuments or WithinDocuments.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, over all devices.
        seed: Seed of the order of the training windows; separate from the seed of the weights.
        eval_windows: At most so many windows of each held-out split are read, spread evenly.
        num_workers: Processes that read ahead; with 0 the training process reads.
        processes: Processes that tokenize; by default one a core.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Tokenizer | None = None,
        store: str | None = None,
        windows: WindowsFactory = AcrossDocuments,
        seq_len: int = 256,
        batch_size: int = 8,
        seed: int = 0,
        eval_windows: int = 256,
        num_workers: int = 0,
        processes: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"seq_len": seq_len, "batch_size": batch_size, "eval_windows": eval_windows}.items():
            check_at_least(1, name, value)
        check_at_least(0, "num_workers", num_workers)
        check_at_least(1, "processes", 1 if processes is None else processes)
        self.sources, self.tokenizer, self.windows = sources, tokenizer, windows
        self.store = None if store is None else Path(store)
        self.seq_len, self.batch_size, self.seed, self.eval_windows = seq_len, batch_size, seed, eval_windows
        self.num_workers, self.processes = num_workers, processes or cores()
        self._announced = False

    def prepare_data(self) -> None:
        """Tokenize what has not been; on one process of each machine."""
        for source in self.sources:
            source.prepare(self.tokenizer, self.store, self.processes)

    @cached_property
    def corpora(self) -> list[Corpus]:
        """Every corpus that is read.

        Raises:
            InputError: one that is not tokenized yet, has changed since, or is shorter than a window.
        """
        corpora = [source.open(self.tokenizer, self.store) for source in self.sources]
        for corpus in corpora:
            self._check_length(corpus)
        return corpora

    @property
    def corpus(self) -> Corpus:
        """The first of them, or the only one."""
        return self.corpora[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens and of where they are split."""
        return self.corpus.fingerprint

    @property
    def vocab_size(self) -> int:
        """Every token is below it."""
        return max(corpus.vocab_size for corpus in self.corpora)

    @property
    def bytes_per_token(self) -> dict[str, float | None]:
        """Bytes of text for a token of each held-out split, under the name that its metrics are logged by."""
        return {"val": self.corpus.validation.bytes_per_token, "test": self.corpus.test.bytes_per_token}

    @property
    def tokens_per_batch(self) -> int:
        """Tokens in a batch, over all devices."""
        return self.batch_size * self.seq_len

    def describe(self) -> dict[str, object]:
        """What a run's record keeps of its data."""
        return {
            **self.corpus.describe(),
            "vocab_size": self.vocab_size,
            "windows": self._windows_name,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "eval_windows": self.eval_windows,
        }

    def setup(self, stage: str) -> None:
        """Open the tokens, and say once what is read, and how much of the held-out text also stands in training."""
        for corpus in [] if self._announced else self.corpora:
            shared = corpus.shared_share or {}
            told = (
                f"{name} {len(stream):,}"
                + (f" ({shared[name]:.2%} of its line starts also stand in training)" if name in shared else "")
                for name, stream in corpus.splits.items()
            )
            rank_zero_info(f"Data: {corpus.source}; tokens ({corpus.tokenizer}): {', '.join(told)}")
        self._announced = True

    def train_dataloader(self) -> NumberedBatches:
        """Batches without end; batch k depends on k, the seed, the sizes and the tokens alone."""
        return self._training()[0]

    def val_dataloader(self) -> HeldOutLoader | list[HeldOutLoader]:
        """Validation's windows: the same ones each time."""
        return self._held_out(self.corpus.validation)

    def test_dataloader(self) -> HeldOutLoader:
        """Test's windows: the same ones each time."""
        return self._held_out(self.corpus.test)

    predict_dataloader = test_dataloader

    def state_dict(self) -> dict[str, Any]:
        """What batch k depends on."""
        return {
            **{name: getattr(self, name) for name in ("fingerprint", "seed", "seq_len", "batch_size")},
            "windows": self._windows_name,
        }

    def _training(self) -> list[WindowLoader]:
        """The training batches of each corpus."""
        return [
            WindowLoader(windows, self.seed, corpus.fingerprint, self.batch_size, self._rank(), num_workers=self.num_workers)
            for windows, corpus in zip(self._laid, self.corpora, strict=True)
        ]

    def _held_out(self, stream: Stream) -> HeldOutLoader:
        windows = self.windows(stream, self.seq_len)
        return HeldOutLoader(windows, windows.held_out(self.eval_windows), self.batch_size, self._rank())

    @cached_property
    def _laid(self) -> list[Windows]:
        """The training windows of each corpus."""
        return [self.windows(corpus.train, self.seq_len) for corpus in self.corpora]

    @property
    def _windows_name(self) -> str:
        return type(self._laid[0]).__name__

    def _check_length(self, corpus: Corpus) -> None:
        for name, stream in corpus.splits.items():
            if not self.windows(stream, self.seq_len).available:
                raise InputError(
                    f"--data.seq_len {self.seq_len} is too long for the data: {name} of {corpus.source} has {len(stream)} "
                    f"tokens, and a window needs {self.seq_len + 1}"
                )


class TextDataModule(WindowDataModule):
    """One text in windows of tokens.

    Args:
        source: Where the text comes from; by default the source of the running Python's standard library.
        **kwargs: see `WindowDataModule`.
    """

    def __init__(self, source: Source | None = None, **kwargs: Any) -> None:
        super().__init__([StandardLibrary() if source is None else source], **kwargs)
