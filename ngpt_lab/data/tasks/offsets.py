"""Tokens, and where in the text each of them stands."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.encoders import ByteEncoder, Encoder, FileEncoder
from ngpt_lab.data.tokenizers import BPE, Bytes, Tokenizer
from ngpt_lab.errors import InputError

AT_ONCE = 1024  # texts: what the tokenizers library makes of one is much larger than its tokens


class Placed(NamedTuple):
    """The tokens of a text, and where each begins and ends in it, in characters."""

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def encoder_of(tokenizer: Tokenizer | None) -> Encoder:
    """The encoder of a tokenizer that needs no training; bytes where there is none.

    Raises:
        InputError: it would be trained on the examples.
    """
    if isinstance(tokenizer, BPE):
        raise InputError(
            "--data.tokenizer BPE would be trained on the examples: name what the model was trained with, as in "
            "--data.tokenizer=TokenizerFolder --data.tokenizer.path=RUN/tokenizer"
        )
    return (tokenizer or Bytes()).encoder(cast(Any, None))  # those that are not trained look at no text


def tokens_of(encoder: Encoder, texts: Sequence[str]) -> list[NDArray[Any]]:
    """The tokens of each text."""
    return [
        tokens.astype(encoder.dtype) for some in _portions(texts) for tokens in encoder.encode([text.encode() for text in some])
    ]


def placed(encoder: Encoder, texts: Sequence[str]) -> list[Placed]:
    """The tokens of each text with their places.

    Raises:
        InputError: the encoder does not tell them.
    """
    if isinstance(encoder, ByteEncoder):
        return [_placed_bytes(text) for text in texts]
    if not isinstance(encoder, FileEncoder):
        raise InputError(f"the tokenizer {encoder.name} does not tell where its tokens stand: use bytes or a tokenizer.json")
    return [
        Placed(np.array(encoding.ids, encoder.dtype), *np.array(encoding.offsets, np.int64).reshape(-1, 2).T)
        for some in _portions(texts)
        for encoding in encoder.tokenizer.encode_batch(some, add_special_tokens=False)
    ]


def _placed_bytes(text: str) -> Placed:
    lengths = np.array([len(character.encode()) for character in text], np.int64)
    starts = np.repeat(np.arange(len(text)), lengths)
    return Placed(np.frombuffer(text.encode(), np.uint8), starts, starts + 1)


def _portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(texts), AT_ONCE):
        yield texts[first : first + AT_ONCE]
