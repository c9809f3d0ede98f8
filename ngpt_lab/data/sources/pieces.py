"""Documents as streams of pieces: cut to a size, divided at a separator, and taken by a range of bytes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE_BYTES = 2**20


class Piece(NamedTuple):
    """Part of a document: UTF-8, and whether the document ends with it.

    What sources give is at most PIECE_BYTES long. What readers give is of any length, until `recut` has cut it, and
    may end a document with a piece of no bytes; no document of theirs is empty.
    """

    text: bytes
    ends: bool


def recut(pieces: Iterable[Piece], limit: int = PIECE_BYTES) -> Iterator[Piece]:
    """The same documents in pieces of at most `limit` bytes, wherever they were cut before.

    A piece that does not end its document ends after the last newline within the limit, else between two characters.
    """
    held = bytearray()
    for text, ends in pieces:
        if ends and not held and 0 < len(text) <= limit:
            yield Piece(text, True)
            continue
        held += text
        while len(held) > limit:
            end = _last_cut(held, limit)
            yield Piece(bytes(held[:end]), False)
            del held[:end]
        if ends and held:
            yield Piece(bytes(held), True)
            held.clear()


def whole(blocks: Iterable[bytes]) -> Iterator[Piece]:
    """All blocks as one document."""
    for block in blocks:
        yield Piece(block, False)
    yield Piece(b"", True)


def divide(blocks: Iterable[bytes], separator: bytes) -> Iterator[Piece]:
    """The documents between separators, of which only a separator's length is held; empty ones are left out."""
    held, begun = b"", False
    for block in blocks:
        *ended, held = (held + block).split(separator)
        for text in ended:
            if text or begun:
                yield Piece(text, True)
            begun = False
        # The last bytes may be the beginning of a separator.
        if (sure := len(held) - len(separator) + 1) > 0:
            yield Piece(held[:sure], False)
            held, begun = held[sure:], True
    if held or begun:
        yield Piece(held, True)


def measure(pieces: Iterable[Piece]) -> int:
    """Bytes of all documents, each with one separator byte after it."""
    return sum(len(text) + ends for text, ends in pieces)


def between(pieces: Iterable[Piece], start: int, stop: int) -> Iterator[Piece]:
    """What lies in the bytes [start, stop) as `measure` counts them; a document that a bound cuts ends there."""
    position, begun = 0, False
    for text, ends in pieces:
        if position >= stop:
            return
        part = text[max(start - position, 0) : stop - position]
        position += len(text) + ends
        ended = ends or position >= stop
        if part or (begun and ended):
            yield Piece(part, ended)
        begun = (begun or bool(part)) and not ended


def _last_cut(text: bytearray, limit: int) -> int:
    if newline := text.rfind(b"\n", 0, limit) + 1:
        return newline
    # A byte 10xxxxxx goes on with a character, of which there are at most four bytes.
    return next((end for end in range(limit, max(limit - 4, 0), -1) if text[end] & 0xC0 != 0x80), limit)
