"""The loss of a decoder with more and more context, beyond what its training had (paper Figure 13)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.analysis.statistics import paired_interval
from ngpt_lab.data.corpora import Stream
from ngpt_lab.data.windows import AcrossDocuments
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder

# Tokens that are evaluated at once, and logits that are held at once.
BATCH_TOKENS = 2**14
LOGITS = 2**25


@torch.no_grad()
def window_losses(decoder: Decoder, stream: Stream, lengths: Sequence[int], windows: int) -> pd.DataFrame:
    """The loss at each length at each of a few places of a text: length, window, loss.

    Every length is scored on the same tokens, the last of each window, as many as half the shortest length; what differs is
    how many tokens before them the decoder sees. So the windows of all lengths end at the same places, and none is padded.

    Args:
        decoder: which is evaluated, on the device it is on.
        stream: a held-out split, longer than the longest length.
        lengths: of the contexts, in tokens.
        windows: how many places to score at, spread evenly; fewer where the text has no room for them side by side.

    Raises:
        InputError: no length, one below 1 or twice, no windows, or a text that is too short or not of the decoder's vocabulary.
    """
    _check(stream, lengths, windows)
    laid = AcrossDocuments(stream, max(lengths))
    tokens, targets, _ = laid.batch(laid.held_out(windows))
    largest = int(max(tokens.max(), targets.max()))
    if largest >= decoder.dims.vocab_size:
        raise InputError(
            f"the text has token id {largest} and the decoder {decoder.dims.vocab_size} ids: "
            "use the tokenizer it was trained with"
        )
    scored = scored_tokens(lengths)
    found = []
    for length in lengths:
        losses = [
            _losses(decoder, own[:, -length:], last[:, -scored:])
            for own, last in zip(*(t.split(max(1, BATCH_TOKENS // length)) for t in (tokens, targets)), strict=True)
        ]
        found.append(pd.DataFrame({"length": length, "window": range(len(tokens)), "loss": torch.cat(losses).numpy()}))
    return pd.concat(found, ignore_index=True)


def scored_tokens(lengths: Sequence[int]) -> int:
    """How many tokens of each window are scored, whatever the length of its context."""
    return max(1, min(lengths) // 2)


def by_length(losses: pd.DataFrame, bytes_per_token: float | None = None) -> pd.DataFrame:
    """`window_losses` over the windows: length, windows, loss, low, high, perplexity, bits_per_byte.

    `low` and `high` are the 95% t interval of the loss over the windows, NaN where there is one alone. They tell how far the
    places of a text differ, which is not how far two lengths differ: see `change_by_length`.

    Args:
        losses: of one decoder.
        bytes_per_token: of the whole text; without it there are no bits per byte.
    """
    rows = []
    for length, own in losses.groupby("length", sort=False)["loss"]:
        interval = paired_interval(own)
        rows.append((length, interval.n, interval.mean, interval.low, interval.high))
    frame = pd.DataFrame(rows, columns=["length", "windows", "loss", "low", "high"])
    bits = frame["loss"] / math.log(2)
    frame["perplexity"] = torch.tensor(frame["loss"].to_numpy()).exp().numpy()
    return frame.assign(bits_per_byte=math.nan if bytes_per_token is None else bits / bytes_per_token)


def change_by_length(losses: pd.DataFrame, reference: int) -> pd.DataFrame:
    """How far the loss at each length is above that at one of them, on the same tokens: length, change, low, high.

    `low` and `high` are the 95% interval of the paired t test over the windows: above 0, the longer context does harm here.
    """
    wide = losses.pivot(index="window", columns="length", values="loss")
    rows = []
    for length in losses["length"].unique():
        interval = paired_interval(wide[length] - wide[reference])
        rows.append((length, interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["length", "change", "low", "high"])


def reference_length(lengths: Sequence[int], trained: int | None) -> int:
    """The length that the others are held against: the longest that training had, or else the shortest."""
    return max((length for length in lengths if trained is not None and length <= trained), default=min(lengths))


def loss_by_length(decoder: Decoder, stream: Stream, lengths: Sequence[int], windows: int) -> pd.DataFrame:
    """`window_losses`, over the windows; see there and `by_length`."""
    return by_length(window_losses(decoder, stream, lengths, windows), stream.bytes_per_token)


def _losses(decoder: Decoder, tokens: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of each row's last positions, (B,): no logits are made of the others, and few at once of these."""
    features = decoder.features(tokens.to(decoder.embedding.weight.device))[:, -targets.shape[1] :].flatten(0, 1)
    rows = max(1, LOGITS // decoder.dims.vocab_size)
    losses = [
        F.cross_entropy(decoder.logits(some[None])[0].cpu().double(), own, reduction="none")
        for some, own in zip(features.split(rows), targets.flatten().split(rows), strict=True)
    ]
    return torch.cat(losses).view_as(targets).mean(dim=1)


def _check(stream: Stream, lengths: Sequence[int], windows: int) -> None:
    if not lengths or min(lengths) < 1 or windows < 1:
        raise InputError(f"lengths are {list(lengths)} and windows {windows}: give lengths and windows of at least 1")
    if len(set(lengths)) < len(lengths):
        raise InputError(f"lengths are {list(lengths)}: give each of them once")
    if len(stream) <= max(lengths):
        raise InputError(
            f"the text has {len(stream)} tokens and length {max(lengths)} needs one more than that: use shorter ones"
        )
