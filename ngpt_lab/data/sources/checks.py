"""Text is UTF-8 and holds no zero byte, which ends a document among bytes."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from ngpt_lab.errors import InputError

Errors = Literal["refuse", "replace"]
HALF_CHARACTERS = re.compile("[\ud800-\udfff]")  # JSON can name them alone, and UTF-8 cannot write them
REMEDY = "(errors: replace would put U+FFFD there)"


def checked_blocks(blocks: Iterable[bytes], where: str, errors: Errors) -> Iterator[bytes]:
    """Blocks of one text, in which what is not UTF-8, and zero, is refused or replaced by U+FFFD.

    Raises:
        InputError: names `where` and the offset of the byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace" if errors == "replace" else "strict")
    offset = 0
    for block in blocks:
        if errors == "refuse" and (zero := block.find(b"\0")) >= 0:
            raise InputError(f"{where} is not text: byte {offset + zero} is zero {REMEDY}")
        waiting = len(decoder.getstate()[0])
        text = _decode(decoder, block, offset - waiting, where)
        offset += len(block)
        yield text.replace("\0", "\ufffd").encode() if errors == "replace" else block
    rest = _decode(decoder, b"", offset - len(decoder.getstate()[0]), where, final=True)
    if rest:
        yield rest.encode()


def decoded(text: bytes, offset: int, where: str, errors: Errors) -> str:
    """Bytes that stand at `offset` of a file as text; see `checked_blocks`."""
    try:
        return text.decode("utf-8", "replace" if errors == "replace" else "strict")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not text: byte {offset + error.start} is not UTF-8 {REMEDY}") from error


def checked_document(document: str | bytes, where: str, errors: Errors) -> bytes:
    """A whole document as UTF-8; `where` names its file and row.

    Raises:
        InputError: names `where` and the offset in the document.
    """
    if isinstance(document, bytes):
        document = decoded(document, 0, where, errors)
    if half := HALF_CHARACTERS.search(document):
        if errors == "refuse":
            raise InputError(f"{where} is not text: character {half.start()} is half of a surrogate pair {REMEDY}")
        document = HALF_CHARACTERS.sub("\ufffd", document)
    text = document.encode()
    if (zero := text.find(b"\0")) >= 0:
        if errors == "refuse":
            raise InputError(f"{where} is not text: byte {zero} of it is zero {REMEDY}")
        text = text.replace(b"\0", "\ufffd".encode())
    return text


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, offset: int, where: str, final: bool = False) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not text: byte {offset + error.start} is not UTF-8 {REMEDY}") from error
