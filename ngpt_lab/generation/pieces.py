"""Text as its tokens come, in pieces of whole characters."""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
# Of a character in UTF-8: it is spread over at most so many tokens.
LONGEST = 4
# How a token is written may depend on those before it, as at the beginning of a text.
BEFORE = 8


class Writes(Protocol):
    """What turns ids into text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; U+FFFD where they end inside a character."""
        ...


class Pieces:
    """Turns one id after the other into text.

    Args:
        tokenizer: what the ids are of.
        before: the ids that they follow.
    """

    def __init__(self, tokenizer: Writes, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(before[-BEFORE:])
        self._told = len(self._ids)

    def push(self, token: int) -> str:
        """What can be told after one more id: nothing while it may end inside a character."""
        self._ids.append(token)
        if not self._tokenizer.decode(self._ids).endswith(REPLACEMENT):
            return self._tell(len(self._ids))
        # So many have begun no character that could still be completed: the first of them is no text.
        return self._tell(self._told + 1) if len(self._ids) - self._told == LONGEST else ""

    def rest(self) -> str:
        """What has not been told."""
        return self._tell(len(self._ids))

    def _tell(self, to: int) -> str:
        known = len(self._tokenizer.decode(self._ids[: self._told]))
        piece = self._tokenizer.decode(self._ids[:to])[known:]
        # The next piece is told apart from this one's ids alone.
        keep = max(0, to - BEFORE)
        self._ids, self._told = self._ids[keep:], to - keep
        return piece
