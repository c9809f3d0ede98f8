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
    """Turns one id after the other into text; a token may end one character and begin the next.

    Args:
        tokenizer: what the ids are of.
        before: the ids that they follow.
    """

    def __init__(self, tokenizer: Writes, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(before)
        # How many of their characters have been told, and how many ids that end with a character will be forgotten next.
        self._told = len(tokenizer.decode(self._ids))
        self._past = len(self._ids)
        self._since = 0

    def push(self, token: int) -> str:
        """What can be told after one more id: not the end of the text while it may be a part of a character."""
        self._ids.append(token)
        self._since += 1
        text = self._tokenizer.decode(self._ids)
        end = len(text.rstrip(REPLACEMENT))
        if self._since >= LONGEST:
            # Of so many ids that end with no character, only the last bytes can still become one.
            end = max(end, len(text) - LONGEST + 1)
        piece = self._tell(text, end)
        if end == len(text):
            self._since = 0
            self._forget()
        return piece

    def rest(self) -> str:
        """What has not been told."""
        text = self._tokenizer.decode(self._ids)
        return self._tell(text, len(text))

    def _tell(self, text: str, end: int) -> str:
        piece = text[self._told : end]
        self._told = max(self._told, end)
        return piece

    def _forget(self) -> None:
        """Let go of the oldest ids, up to a place where a character ended: what is left is written as it was."""
        if len(self._ids) - self._past >= BEFORE:
            self._ids = self._ids[self._past :]
            self._past, self._told = len(self._ids), len(self._tokenizer.decode(self._ids))
