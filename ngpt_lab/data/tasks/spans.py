"""Questions, contexts, and answers that are spans of their contexts."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from ngpt_lab.data.replayed import check_at_least
from ngpt_lab.data.tasks.examples import AskedContext, Windows
from ngpt_lab.data.tasks.module import TaskData
from ngpt_lab.data.tasks.offsets import Placed, placed, tokens_of
from ngpt_lab.data.tasks.rows import Rows, text_value
from ngpt_lab.errors import InputError

Answers = list[tuple[str, int]]
SPLITS = ["train", "validation", "test"]


class SpanData(TaskData):
    """Questions, contexts, and answers that are spans of their contexts, in SQuAD's form.

    A context that is too long is read in windows that overlap. In training each is an example of its own, whose span is its
    first token where it does not hold the answer, as in SQuAD's usual training; of a held-out question all windows stand in
    one batch. A question takes at most half the window.

    Args:
        question: Column of the question.
        context: Column of the context.
        answers: Column of the answers: {"text": [...], "answer_start": [...]}, with starts in characters; training takes the
            first of them.
        stride: Tokens of a context that a window shares with the window before it.
        **kwargs: see `TaskData`.
    """

    def __init__(
        self, question: str = "question", context: str = "context", answers: str = "answers", stride: int = 64, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_at_least(0, "stride", stride)
        if stride + 1 >= self.seq_len // 2:
            most = self.seq_len // 2 - 2
            raise InputError(
                f"--data.stride {stride} leaves no room in --data.seq_len {self.seq_len}: at most {most} is possible"
            )
        self.question_column, self.context_column, self.answers_column, self.stride = question, context, answers, stride

    @property
    def columns(self) -> list[str]:
        """See `TaskData`."""
        return [self.question_column, self.context_column, self.answers_column]

    @property
    def text_column(self) -> str:
        """See `TaskData`."""
        return self.context_column

    @property
    def num_labels(self) -> int:
        """A start and an end."""
        return 2

    @property
    def label_names(self) -> list[str]:
        """A start and an end."""
        return ["start", "end"]

    def settings(self) -> dict[str, object]:
        """See `TaskData`."""
        return {"columns": self.columns, "stride": self.stride}

    def read(self, rows: Rows, split: str) -> Windows:
        """See `TaskData`."""
        questions = list(rows.read(self.question_column, text_value))
        contexts = list(rows.read(self.context_column, text_value))
        answers = list(rows.read(self.answers_column, _answers))
        heads = tokens_of(self.encoder, questions)
        # Many questions are asked about the same context.
        distinct = list(dict.fromkeys(contexts))
        bodies = dict(zip(distinct, placed(self.encoder, distinct), strict=True))
        asked = [
            self._asked(rows, row, head[: (self.seq_len - 1) // 2], bodies[contexts[row]], contexts[row], answers[row])
            for row, head in enumerate(heads)
        ]
        windows = np.array([window for number, one in enumerate(asked) for window in self._windows(number, one)], np.int64)
        too_long = sum(len(one.head) + len(one.body) > self.seq_len for one in asked)
        first = sum(len(self.examples(before)) for before in _before(split))
        return Windows(asked, windows, first, self.pad_token_id, too_long)

    def question(self, index: int) -> int:
        """The number of the question that window `index` belongs to, in its split.

        Raises:
            InputError: there is no such window.
        """
        return self._split(index).question(index)

    def answer(self, index: int, start: int, end: int) -> str:
        """The text from token `start` to token `end` of window `index`; empty where they are none of its context.

        Raises:
            InputError: there is no such window.
        """
        return self._split(index).text(index, start, end)

    def references(self, index: int) -> list[str]:
        """The true answers to the question of window `index`.

        Raises:
            InputError: there is no such window.
        """
        of = self._split(index)
        return of.asked[of.question(index)].references

    def _split(self, index: int) -> Windows:
        count = 0
        for split in SPLITS if self.source.place("test") else SPLITS[:2]:
            of = cast(Windows, self.examples(split))
            count = of.first + len(of)
            if of.first <= index < count:
                return of
        raise InputError(f"there is no window {index}: the examples have {count}, from 0")

    def _asked(self, rows: Rows, row: int, head: Any, body: Placed, context: str, answers: Answers) -> AskedContext:
        for text, start in answers:
            if context[start : start + len(text)] != text or start < 0:
                raise InputError(
                    f"{rows.at(row, self.answers_column)} the answer {text[:40]!r} does not stand at its answer_start {start}, "
                    f"where the context has {context[max(start, 0) : max(start, 0) + len(text)][:40]!r}"
                )
        text, start = answers[0]
        first = int(np.searchsorted(body.ends, start, side="right"))
        last = int(np.searchsorted(body.starts, start + len(text), side="left")) - 1
        if first > last:
            raise InputError(f"{rows.at(row, self.answers_column)} no token of the context holds the answer {text[:40]!r}")
        head = np.append(head, np.array(self.pad_token_id, head.dtype))
        return AskedContext(
            head, body.tokens, body.starts, body.ends, (first, last), context, list(dict.fromkeys(text for text, _ in answers))
        )

    def _windows(self, number: int, asked: AskedContext) -> Iterator[tuple[int, int, int]]:
        room = self.seq_len - len(asked.head)
        first = 0
        while first + room < len(asked.body):
            yield number, first, first + room
            first += room - self.stride
        yield number, first, len(asked.body)


def _before(split: str) -> list[str]:
    return SPLITS[: SPLITS.index(split)]


def _answers(value: object) -> Answers:
    """The texts and starts of answers, as SQuAD's columns or as a list of single answers has them."""
    if isinstance(value, list):
        value = {key: [one.get(key) for one in value if isinstance(one, dict)] for key in ("text", "answer_start")}
    texts, starts = (value.get(key) if isinstance(value, dict) else None for key in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise InputError(f"there are no answers as in {{'text': [...], 'answer_start': [...]}} but {str(value)[:40]!r}")
    if not texts:
        raise InputError("there is no answer: leave out questions that have none")
    if not all(isinstance(text, str) and text for text in texts) or not all(isinstance(start, int) for start in starts):
        raise InputError("an answer has no text, or no whole number for its start")
    return list(zip(texts, starts, strict=True))
