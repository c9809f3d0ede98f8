"""A decoder's loss by the length of its context, for the record beside its run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngpt_lab.analysis.lengths import by_length, change_by_length, reference_length, scored_tokens, window_losses
from ngpt_lab.data.corpora import Stream
from ngpt_lab.errors import InputError
from ngpt_lab.files import reading
from ngpt_lab.interop.run_tokenizer import tokenizer_of
from ngpt_lab.interop.trained import Trained, run_data
from ngpt_lab.training.resume import recorded


class Text(Stream):
    """Tokens in memory, as one document.

    Args:
        tokens: of the text.
        size: of the text, in bytes.
    """

    def __init__(self, tokens: Sequence[int], size: int) -> None:
        self.tokens, self.size = np.asarray(tokens, np.int64), size

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bytes(self) -> int:
        """See `Stream`."""
        return self.size

    @property
    def documents(self) -> NDArray[np.int64]:
        """See `Stream`."""
        return np.zeros(1, np.int64)

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """See `Stream`."""
        return self.tokens[starts[:, None] + np.arange(length)]


def results(trained: Trained, lengths: Sequence[int], windows: int, text: Path | None = None) -> dict[str, Any]:
    """The loss by length, ready for JSON.

    Args:
        trained: of the run, its decoder on the device that evaluates.
        lengths: of the contexts, in tokens.
        windows: places of the text that are scored.
        text: a file to read; by default the validation split of the run's own data.

    Raises:
        InputError: no text, or one that is too short.
    """
    stream, data = validation(trained) if text is None else file(trained, text)
    losses = window_losses(trained.decoder, stream, lengths, windows)
    length = trained.settings.get("data.init_args.seq_len")
    against = reference_length(lengths, length)
    change = change_by_length(losses, against).rename(columns={"low": "change_low", "high": "change_high"})
    rows = by_length(losses, stream.bytes_per_token).merge(change, on="length")
    return {
        "data": {**data, "tokens": len(stream), "bytes_per_token": stream.bytes_per_token},
        "trained_length": length,
        "scored_tokens": scored_tokens(lengths),
        "change_from": against,
        "lengths": [{name: plain(value) for name, value in row.items()} for row in rows.to_dict("records")],
    }


def validation(trained: Trained) -> tuple[Stream, dict[str, Any]]:
    """The validation split of a run's data, and whether it is still what the run was validated on.

    Raises:
        InputError: the run has none.
    """
    if not any(name.startswith("data.") for name in trained.settings):
        raise InputError(f"{trained.folder} was imported and has no data of its own: name a text to read with --text")
    data = run_data(trained.folder)
    then = recorded(trained.folder).get("data", {}).get("fingerprint")
    same = None if then is None else data.fingerprint == then
    described = {"source": data.corpus.source, "split": "validation", "fingerprint": data.fingerprint}
    return data.corpus.validation, {**described, "same_as_in_training": same}


def file(trained: Trained, path: Path) -> tuple[Stream, dict[str, Any]]:
    """A text file as the run's tokenizer reads it.

    Raises:
        InputError: it cannot be read, is not UTF-8, or the run has no tokenizer.
    """
    content = utf8(path)
    tokenizer = tokenizer_of(trained.folder)
    if tokenizer is None:
        raise InputError(f"{trained.folder} has no tokenizer, and its tokens are not there to tell: a text needs one")
    described = {"source": path.name, "fingerprint": hashlib.sha256(content).hexdigest()}
    return Text(tokenizer.encode(content.decode()), len(content)), described


def utf8(path: Path) -> bytes:
    """The content of a text file.

    Raises:
        InputError: it cannot be read, or is not UTF-8, so that no token could stand for some of its bytes.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        content.decode()
    except UnicodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}): convert it first") from error
    return content


def plain(value: Any) -> Any:
    """A number that JSON has; None for one that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
