"""What a worker does: a batch of pieces becomes tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.data.encoders import Encoder
from ngpt_lab.data.store.lines import found_in

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import Piece


@dataclass(frozen=True)
class Encoded:
    """A batch of pieces as tokens.

    Args:
        tokens: of all pieces, each document followed by the separator.
        piece_ends: how many tokens there are up to the end of each piece.
        byte_ends: how many bytes there are up to the end of each piece, a separator counting one.
        document_ends: how many tokens there are up to the end of each document that ends.
        lines: the line starts found.
    """

    tokens: NDArray[Any]
    piece_ends: NDArray[np.int64]
    byte_ends: NDArray[np.int64]
    document_ends: NDArray[np.int64]
    lines: frozenset[bytes]


@dataclass(frozen=True)
class Encoding:
    """The task of one split; it is sent to each worker once.

    Args:
        encoder: what makes tokens.
        wanted: line starts to look for; None samples them.
    """

    encoder: Encoder
    wanted: frozenset[bytes] | None

    def __call__(self, pieces: Sequence["Piece"]) -> Encoded:
        """Encode a batch."""
        texts = [piece.text for piece in pieces]
        ends = np.array([piece.ends for piece in pieces], np.int64)
        encoded = self.encoder.encode(texts)
        piece_ends = np.cumsum(np.array([len(tokens) for tokens in encoded], np.int64) + ends)
        tokens = np.full(piece_ends[-1], self.encoder.separator, np.dtype(self.encoder.dtype).newbyteorder("<"))
        for of_one, end, separated in zip(encoded, piece_ends.tolist(), ends.tolist(), strict=True):
            tokens[end - separated - len(of_one) : end - separated] = of_one
        byte_ends = np.cumsum(np.array([len(text) for text in texts], np.int64) + ends)
        return Encoded(tokens, piece_ends, byte_ends, piece_ends[ends > 0], found_in(texts, self.wanted))
