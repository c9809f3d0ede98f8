"""What the data modules of all tasks share."""

import hashlib
from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from ngpt_lab.data.encoders import Encoder
from ngpt_lab.data.replayed import ReplayedDataModule, check_at_least
from ngpt_lab.data.tasks.examples import Examples
from ngpt_lab.data.tasks.loader import ExampleLoader, HeldOutExamples
from ngpt_lab.data.tasks.offsets import encoder_of
from ngpt_lab.data.tasks.rows import Rows
from ngpt_lab.data.tasks.tables import Table
from ngpt_lab.data.tokenizers import Tokenizer
from ngpt_lab.errors import InputError

HELD_OUT_EVERY = 10


class TaskData(ReplayedDataModule):
    """Labelled examples, in an order that depends on the seed and the examples alone.

    They are read, tokenized and kept in memory when a run starts. Validation that the source does not have is cut from its
    training: every tenth different text, with all of its rows, so that no text stands on both sides. Texts that merely
    resemble each other may.

    Args:
        source: Where the examples come from; there is no default.
        tokenizer: How text becomes tokens; by default its bytes.
        seq_len: Tokens of the longest example; longer ones are cut.
        batch_size: Examples in a batch, over all devices.
        seed: Seed of the order of the training examples; separate from the seed of the weights.
        eval_examples: At most so many examples of each held-out split are read, spread evenly; by default all.
    """

    def __init__(
        self,
        source: Table | None = None,
        tokenizer: Tokenizer | None = None,
        seq_len: int = 256,
        batch_size: int = 32,
        seed: int = 0,
        eval_examples: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"seq_len": seq_len, "batch_size": batch_size, "eval_examples": eval_examples}.items():
            check_at_least(1, name, 1 if value is None else value)
        if source is None:
            raise InputError(
                "--data.source is not set: name the examples, as in --data.source=TableFiles --data.source.files=train.jsonl, "
                "--data.source=SavedTable --data.source.folder=FOLDER or --data.source=HubTable --data.source.path=OWNER/NAME"
            )
        self.source, self.tokenizer = source, tokenizer
        self.seq_len, self.batch_size, self.seed, self.eval_examples = seq_len, batch_size, seed, eval_examples
        self._examples: dict[str, Examples] = {}
        self._announced = False

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """The columns that are read."""

    @property
    @abstractmethod
    def text_column(self) -> str:
        """The column of the texts that are held out with all of their rows."""

    @abstractmethod
    def read(self, rows: Rows, split: str) -> Examples:
        """The examples of a split.

        Raises:
            InputError: names the file or the dataset, the split, the row and the column.
        """

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What else the examples depend on, for the record."""

    def prepare_data(self) -> None:
        """Download what is on the hub; on one process of each machine."""
        self.source.prepare()

    @cached_property
    def encoder(self) -> Encoder:
        """What turns text into tokens."""
        return encoder_of(self.tokenizer)

    @property
    def vocab_size(self) -> int:
        """Every token is below it."""
        return self.encoder.vocab_size

    @property
    def pad_token_id(self) -> int:
        """What stands in padding: the tokenizer's separator, which no text holds."""
        return self.encoder.separator

    def examples(self, split: str) -> Examples:
        """The examples of train, validation or test.

        Raises:
            InputError: see `read` and `rows`.
        """
        if split not in self._examples:
            self._examples[split] = self.read(self.rows(split), split)
        return self._examples[split]

    def rows(self, split: str) -> Rows:
        """The rows of a split.

        Raises:
            InputError: there is no such split, or it is empty, or has too few different texts to hold some out.
        """
        if split != "test" and self.source.place("validation") is None:
            return self._cut[split]
        return self.given if split == "train" else self._whole(split)

    @cached_property
    def given(self) -> Rows:
        """The rows of training, with those that are held out of it: the classes are all that stand in them."""
        return self._whole("train")

    def _whole(self, split: str) -> Rows:
        rows = self.source.rows(split, self.columns)
        if rows is None:
            raise InputError(f"{self.source.name} has no {split} split: name one with --data.source.{split}")
        if not len(rows):
            raise InputError(f"{rows.where} is empty: {split} needs at least one row")
        return rows

    @cached_property
    def _cut(self) -> dict[str, Rows]:
        """Training and validation where both are cut from training."""
        texts = list(map(str, self.given.columns[self.text_column]))
        number = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        if len(number) < HELD_OUT_EVERY:
            raise InputError(
                f"{self.given.where} has {len(texts)} rows of {len(number)} different texts in column {self.text_column!r}, "
                f"and every tenth is held out: give at least {HELD_OUT_EVERY}, or name a split with --data.source.validation"
            )
        held = np.array([number[text] for text in texts]) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        return {"train": self.given.some(np.flatnonzero(~held)), "validation": self.given.some(np.flatnonzero(held))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens and labels of training and validation."""
        return hashlib.sha256("".join(of.digest for of in self._fitted.values()).encode()).hexdigest()

    @property
    def tokens_per_batch(self) -> int:
        """Tokens in a batch over all devices, at most: the room that it has."""
        return self.batch_size * self.seq_len

    @property
    def bytes_per_token(self) -> dict[str, float | None]:
        """Nothing: losses here are not those of text."""
        return {"val": None, "test": None}

    def describe(self) -> dict[str, object]:
        """What a run's record keeps of its data."""
        return {
            "source": self.source.name,
            **self.settings(),
            "examples": {split: len(of) for split, of in self._fitted.items()},
            "tokens": {split: of.tokens for split, of in self._fitted.items()},
            "too_long": {split: of.too_long for split, of in self._fitted.items()},
            "fingerprint": self.fingerprint,
            "tokenizer": self.encoder.name,
            "tokenizer_fingerprint": self.encoder.fingerprint,
            "vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "eval_examples": self.eval_examples,
        }

    def setup(self, stage: str) -> None:
        """Read and tokenize, and say once what there is."""
        told = ", ".join(
            f"{split} {len(of):,}" + (f" ({of.too_long:,} longer than {self.seq_len} tokens)" if of.too_long else "")
            for split, of in self._fitted.items()
        )
        if not self._announced:
            rank_zero_info(f"Data: {self.source.name}; examples (tokens: {self.encoder.name}): {told}")
        self._announced = True

    def train_dataloader(self) -> ExampleLoader:
        """Batches without end; batch k depends on k, the seed, the batch's size and the examples alone."""
        return ExampleLoader(self.examples("train"), self.seed, self.fingerprint, self.batch_size, self._rank())

    def val_dataloader(self) -> HeldOutExamples:
        """Validation's examples, in their order."""
        return self._held_out("validation")

    def test_dataloader(self) -> HeldOutExamples:
        """Test's examples, in their order.

        Raises:
            InputError: the source has none.
        """
        return self._held_out("test")

    predict_dataloader = test_dataloader

    def state_dict(self) -> dict[str, Any]:
        """What batch k depends on."""
        return {name: getattr(self, name) for name in ("fingerprint", "seed", "seq_len", "batch_size")}

    @property
    def _fitted(self) -> dict[str, Examples]:
        """What `fit` reads; a test split may lack labels."""
        return {split: self.examples(split) for split in ("train", "validation")}

    def _held_out(self, split: str) -> HeldOutExamples:
        return HeldOutExamples(self.examples(split), self.eval_examples, self.batch_size, self._rank())
