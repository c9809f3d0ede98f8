"""Texts in words, each of which has a tag."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.tasks.examples import LabelledTexts
from ngpt_lab.data.tasks.labels import Classes, classes_of, list_value
from ngpt_lab.data.tasks.module import TaskData
from ngpt_lab.data.tasks.offsets import Placed, placed
from ngpt_lab.data.tasks.rows import Rows, text_value
from ngpt_lab.errors import InputError
from ngpt_lab.nn.labels import IGNORED


class TokenData(TaskData):
    """Texts in words, each of which has a tag; the words are put together with a space between each two.

    Args:
        words: Column of the list of words.
        tags: Column of the list of their tags.
        tagged: Which token of a word has its tag; the others have none. At the last one a decoder has read the whole word.
        **kwargs: see `TaskData`.
    """

    def __init__(
        self, words: str = "tokens", tags: str = "ner_tags", tagged: Literal["first", "last"] = "first", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.words, self.tags, self.tagged = words, tags, tagged

    @property
    def columns(self) -> list[str]:
        """See `TaskData`."""
        return [self.words, self.tags]

    @property
    def text_column(self) -> str:
        """See `TaskData`."""
        return self.words

    @cached_property
    def classes(self) -> Classes:
        """The tags, as training is given with them."""
        return classes_of(self.given, self.tags, chain.from_iterable(self.given.read(self.tags, list_value)))

    @property
    def num_labels(self) -> int:
        """How many tags there are."""
        return len(self.classes.names)

    @property
    def label_names(self) -> list[str]:
        """The tags, in the order of their numbers."""
        return list(self.classes.names)

    def settings(self) -> dict[str, object]:
        """See `TaskData`."""
        labels = {"num_labels": self.num_labels, "label_names": self.label_names}
        return {"columns": self.columns, "tagged": self.tagged, **labels}

    def read(self, rows: Rows, split: str) -> LabelledTexts:
        """See `TaskData`."""
        words = list(rows.read(self.words, _words))
        number = self.classes.number
        tags = list(rows.read(self.tags, lambda value: [number(each) for each in list_value(value)]))
        for row, (some, marks) in enumerate(zip(words, tags, strict=True)):
            if len(some) != len(marks):
                raise InputError(
                    f"{rows.at(row, self.tags)} there are {len(marks)} tags for {len(some)} words of column {self.words!r}"
                )
        texts = placed(self.encoder, [" ".join(some) for some in words])
        for row, text in enumerate(texts):
            if not len(text.tokens):
                raise InputError(
                    f"{rows.at(row, self.words)} the tokenizer has no token for any of the words: leave the row out"
                )
        labels = [self._labels(*each)[: self.seq_len] for each in zip(texts, words, tags, strict=True)]
        too_long = sum(len(text.tokens) > self.seq_len for text in texts)
        return LabelledTexts([text.tokens[: self.seq_len] for text in texts], labels, self.pad_token_id, too_long)

    def _labels(self, text: Placed, words: Sequence[str], tags: Sequence[int]) -> NDArray[np.int64]:
        """The tag of each token; none for a word without tokens, or whose place has another's tag."""
        labels = np.full(len(text.tokens), IGNORED, np.int64)
        ends = np.array(list(accumulate(len(word) + 1 for word in words))) - 1
        begins = ends - np.array([len(word) for word in words])
        # Of a word are the tokens from the first that ends after its beginning to the last that begins before its end.
        first = np.searchsorted(text.ends, begins, side="right")
        last = np.searchsorted(text.starts, ends, side="left") - 1
        at = first if self.tagged == "first" else last
        for place, tag, there in zip(at, tags, first <= last, strict=True):
            if there and labels[place] == IGNORED:
                labels[place] = tag
        return labels


def _words(value: object) -> list[str]:
    words = [text_value(word) for word in list_value(value)]
    if not all(word.strip() for word in words):
        raise InputError("a word is empty, or whitespace alone")
    if not words:
        raise InputError("there is no word: leave the row out")
    return words
