"""Encoders: what turns text into tokens and back, in any process."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

TOKENIZER_JSON = "tokenizer.json"
LARGEST_FILE = 2**28
SAMPLE = "The quick brown fox, 0123 \u00e9\u4e2d\n"


class Encoder(ABC):
    """Text to tokens; it can be sent to another process."""

    name: str
    vocab_size: int
    separator: int
    fingerprint: str

    @abstractmethod
    def encode(self, texts: Sequence[bytes]) -> list[NDArray[Any]]:
        """The tokens of each text, unsigned integers, without a separator."""

    @abstractmethod
    def decode(self, tokens: NDArray[Any]) -> bytes:
        """The text of tokens."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what it takes to load it again."""

    @property
    def dtype(self) -> str:
        """The smallest of the two types of a stored token that holds every id."""
        return "uint16" if self.vocab_size <= 2**16 else "uint32"


class ByteEncoder(Encoder):
    """A token is a byte."""

    name = "bytes"
    vocab_size = 256
    separator = 0
    fingerprint = hashlib.sha256(b"bytes").hexdigest()

    def encode(self, texts: Sequence[bytes]) -> list[NDArray[Any]]:
        """See `Encoder`."""
        return [np.frombuffer(text, np.uint8) for text in texts]

    def decode(self, tokens: NDArray[Any]) -> bytes:
        """See `Encoder`."""
        return tokens.astype(np.uint8).tobytes()

    def save(self, folder: Path) -> None:
        """See `Encoder`; there is nothing to write."""


class FileEncoder(Encoder):
    """What a tokenizer.json says.

    Text that spells a special token is text: no document can end another. Templates, truncation and padding of the file
    do not apply.

    Args:
        content: the file's.
        separator: the token that follows each document.
        name: for records.
        path: the file, for messages.

    Raises:
        InputError: the content is no tokenizer's, or the separator is none of its tokens.
    """

    def __init__(self, content: bytes, separator: str, name: str = TOKENIZER_JSON, path: Path | str = TOKENIZER_JSON) -> None:
        self.content, self.separator_token, self.name, self.path = content, separator, name, path
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=True)
        if separator not in vocabulary:
            raise InputError(
                f"{path} has no token {separator!r}, which would follow each document: name one it has with separator"
                + _suggestions(self.tokenizer)
            )
        self.separator = vocabulary[separator]
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > 2 * len(vocabulary):
            raise InputError(
                f"{path} gives {len(vocabulary)} tokens ids up to {self.vocab_size - 1}, so most ids would have no token: "
                "number them without such holes"
            )
        self.fingerprint = file_fingerprint(content, self.separator)
        self._try()

    def named(self, name: str) -> "FileEncoder":
        """The same under another name."""
        self.name = name
        return self

    def encode(self, texts: Sequence[bytes]) -> list[NDArray[Any]]:
        """See `Encoder`; bytes that are not UTF-8, as where a split is cut inside a character, become U+FFFD."""
        decoded = [text.decode(errors="replace") for text in texts]
        return [
            np.array(encoded.ids, np.uint32) for encoded in self.tokenizer.encode_batch_fast(decoded, add_special_tokens=False)
        ]

    def decode(self, tokens: NDArray[Any]) -> bytes:
        """See `Encoder`."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False).encode()

    def save(self, folder: Path) -> None:
        """See `Encoder`."""
        write_atomically(folder / TOKENIZER_JSON, self.content)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "tokenizer"}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the tokenizers library."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(_with_special(self.content, self.separator_token))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exceptions
            raise InputError(f"{self.path} is not a tokenizer of the tokenizers library: {_told(error)}") from error
        # Whoever wrote the text did not mean it as a command.
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _try(self) -> None:
        try:
            ids = self.encode([SAMPLE.encode()])[0]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # as above
            raise InputError(f"{self.path} cannot encode text: {_told(error)}") from error
        if len(ids) and ids.max() >= self.vocab_size:
            raise InputError(f"{self.path} encodes text as id {ids.max()}, and it has {self.vocab_size} tokens")


def file_fingerprint(content: bytes, separator: int) -> str:
    """The fingerprint of the encoder of a tokenizer.json."""
    return hashlib.sha256(f"{separator} ".encode() + content).hexdigest()


def read_tokenizer(path: Path) -> bytes:
    """The content of a tokenizer.json.

    Raises:
        InputError: it cannot be read, or is larger than any tokenizer.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(f"{path} has {size} bytes, more than a tokenizer needs: at most {LARGEST_FILE} are read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _with_special(content: bytes, separator: str) -> str:
    # An added token that is not called special would be found in text.
    described = json.loads(content)
    if not isinstance(described, dict):
        raise TypeError("it holds no object")
    for token in described.get("added_tokens") or []:
        if token["content"] == separator:
            token["special"] = True
    return json.dumps(described)


def _suggestions(tokenizer: Any) -> str:
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return f", such as {', '.join(map(repr, special[:3]))}" if special else ""


def _told(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"no {error}"
    return str(error).partition("\n")[0][:200] or type(error).__name__
