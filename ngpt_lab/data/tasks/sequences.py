"""Texts, or pairs of texts, and what each is labelled with."""

from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.tasks.examples import LabelledTexts
from ngpt_lab.data.tasks.labels import Classes, classes_of, list_value
from ngpt_lab.data.tasks.module import TaskData
from ngpt_lab.data.tasks.offsets import tokens_of
from ngpt_lab.data.tasks.rows import Rows, text_value
from ngpt_lab.errors import InputError

LARGEST = float(np.finfo(np.float32).max)
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]


class SequenceData(TaskData):
    """Texts, or pairs of texts, and what each is labelled with.

    Args:
        text: Column of the text.
        text_pair: Column of a second text, which follows the first after a separator.
        label: Column of the class, of a list of classes, or of a number or a list of numbers.
        problem: One class a text, any number of classes, or numbers; in Hugging Face's words.
        **kwargs: see `TaskData`.
    """

    def __init__(
        self,
        text: str = "text",
        text_pair: str | None = None,
        label: str = "label",
        problem: Problem = "single_label_classification",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if text_pair and self.seq_len < 3:
            raise InputError(
                f"--data.seq_len {self.seq_len} has no room for two texts and the separator: at least 3 is possible"
            )
        self.text, self.text_pair, self.label, self.problem = text, text_pair, label, problem

    @property
    def columns(self) -> list[str]:
        """See `TaskData`."""
        return [self.text, *([self.text_pair] if self.text_pair else []), self.label]

    @property
    def text_column(self) -> str:
        """See `TaskData`; of a pair the first."""
        return self.text

    @cached_property
    def classes(self) -> Classes:
        """The classes, as training is given with them."""
        if self.problem == "single_label_classification":
            return classes_of(self.given, self.label, self.given.columns[self.label])
        return classes_of(self.given, self.label, chain.from_iterable(self.given.read(self.label, list_value)))

    @cached_property
    def num_labels(self) -> int:
        """How many classes there are, or numbers in each label."""
        if self.problem != "regression":
            return len(self.classes.names)
        first = self.given.columns[self.label][0]
        return len(first) if isinstance(first, list) else 1

    @property
    def label_names(self) -> list[str]:
        """The names of the classes, in the order of their numbers; none where labels are numbers."""
        return [] if self.problem == "regression" else list(self.classes.names)

    def settings(self) -> dict[str, object]:
        """See `TaskData`."""
        labels = {"problem": self.problem, "num_labels": self.num_labels, "label_names": self.label_names}
        return {"columns": self.columns, **labels}

    def read(self, rows: Rows, split: str) -> LabelledTexts:
        """See `TaskData`."""
        texts = tokens_of(self.encoder, list(rows.read(self.text, text_value)))
        if self.text_pair:
            seconds = tokens_of(self.encoder, list(rows.read(self.text_pair, text_value)))
            whole = [self._paired(*both) for both in zip(texts, seconds, strict=True)]
            too_long = sum(len(one) + len(two) + 1 > self.seq_len for one, two in zip(texts, seconds, strict=True))
        else:
            whole = [text[: self.seq_len] for text in texts]
            too_long = sum(len(text) > self.seq_len for text in texts)
        for row, tokens in enumerate(whole):
            if not (tokens != self.pad_token_id).any():
                raise InputError(f"{rows.at(row, self.text)} the text is empty: leave the row out")
        return LabelledTexts(whole, self._labels(rows), self.pad_token_id, too_long)

    def _paired(self, one: NDArray[Any], two: NDArray[Any]) -> NDArray[Any]:
        """Both with a separator between; the longer is cut where there is no room for all."""
        room = self.seq_len - 1
        first = min(len(one), max(room - len(two), (room + 1) // 2))
        return np.concatenate((one[:first], np.array([self.pad_token_id], one.dtype), two[: room - first]))

    def _labels(self, rows: Rows) -> NDArray[Any]:
        if self.problem == "single_label_classification":
            return np.fromiter(rows.read(self.label, self.classes.number), np.int64, len(rows))
        read = self._numbers if self.problem == "regression" else self._several
        shape = (len(rows), self.num_labels)
        return np.array(list(rows.read(self.label, read)), np.float32).reshape(shape)

    def _several(self, value: object) -> NDArray[np.float32]:
        labels = list_value(value)
        numbers = [self.classes.number(each) for each in labels]
        if len(set(numbers)) < len(numbers) or any(isinstance(each, bool) for each in labels):
            raise InputError(f"the label {value!r} must name each class that applies once, and not have 0 or 1 for each class")
        marks = np.zeros(self.num_labels, np.float32)
        marks[numbers] = 1
        return marks

    def _numbers(self, value: object) -> list[Any]:
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) != self.num_labels or not all(_is_number(number) for number in numbers):
            raise InputError(f"the label {value!r} is not {self.num_labels} finite number(s)")
        return numbers


def _is_number(value: object) -> bool:
    """Whether it is a number that float32 holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
