"""A data module that changes from one text to another and back."""

import hashlib
from functools import cached_property
from typing import Any

from ngpt_lab.data.corpora import Corpus
from ngpt_lab.data.loader import HeldOutLoader, NumberedBatches, SwitchingLoader
from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.data.replayed import check_at_least
from ngpt_lab.data.sources.source import Source
from ngpt_lab.data.tokenizers import BPE, Tokenizer
from ngpt_lab.errors import InputError


class SwitchingTextDataModule(WindowDataModule):
    """One text, then another, then the first again, and so on; validation reads both, the test split is the first's.

    Batch k is the first text's where k // switch_every is even, and the second's where it is odd, so a run of three times
    `switch_every` batches leaves the first text and comes back to it. Validation of the second text is logged as val_other.

    Args:
        first: The text that training begins with.
        second: The text that it changes to.
        switch_every: Batches until the text changes.
        tokenizer: How both become tokens; by default their bytes. One that is trained would be another for each text.
        **kwargs: see `WindowDataModule`, less `store`.
    """

    def __init__(
        self, first: Source, second: Source, switch_every: int, tokenizer: Tokenizer | None = None, **kwargs: Any
    ) -> None:
        check_at_least(1, "switch_every", switch_every)
        if isinstance(tokenizer, BPE):
            raise InputError(
                "--data.tokenizer BPE would be trained anew for the second text: train it on one with ngpt-lab tokenize, "
                "and name its tokenizer.json with ngpt_lab.data.TokenizerFile"
            )
        super().__init__([first, second], tokenizer, None, **kwargs)
        self.switch_every = switch_every

    @cached_property
    def corpora(self) -> list[Corpus]:
        """Both.

        Raises:
            InputError: see `WindowDataModule`; or they are the same.
        """
        first, second = super().corpora
        if first.fingerprint == second.fingerprint:
            raise InputError(f"--data.first and --data.second are the same text ({first.source}): name two")
        return [first, second]

    @property
    def other(self) -> Corpus:
        """The second text."""
        return self.corpora[1]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both texts' fingerprints."""
        return hashlib.sha256("".join(corpus.fingerprint for corpus in self.corpora).encode()).hexdigest()

    @property
    def bytes_per_token(self) -> dict[str, float | None]:
        """See `WindowDataModule`."""
        return {**super().bytes_per_token, "val_other": self.other.validation.bytes_per_token}

    def describe(self) -> dict[str, object]:
        """See `WindowDataModule`; `other` is the second text."""
        mine = {"fingerprint": self.fingerprint, "other": self.other.describe(), "switch_every": self.switch_every}
        return {**super().describe(), **mine}

    def train_dataloader(self) -> NumberedBatches:
        """Batches of both texts in turn, without end; see `WindowDataModule`."""
        first, second = self._training()
        return SwitchingLoader(first, second, self.switch_every, num_workers=self.num_workers)

    def val_dataloader(self) -> list[HeldOutLoader]:
        """The first text's windows, then the second's."""
        return [self._held_out(corpus.validation) for corpus in self.corpora]

    def state_dict(self) -> dict[str, Any]:
        """See `WindowDataModule`."""
        return {**super().state_dict(), "switch_every": self.switch_every}
