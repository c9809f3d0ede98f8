"""Texts continued token by token."""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.generation.cache import FixedCache
from ngpt_lab.generation.sampling import Greedy, Sampler
from ngpt_lab.models.decoder import Block, Decoder, last
from ngpt_lab.nn.attend_function import Attend
from ngpt_lab.nn.attention import Cache, Context


@torch.inference_mode()
def generate(
    decoder: Decoder,
    tokens: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    sampler: Sampler | None = None,
    stop: Collection[int] = (),
) -> Iterator[Tensor]:
    """The ids that follow, (B,) at a time, as they are chosen; a row that has ended repeats the id it ended with.

    Args:
        decoder: what gives the logits, in evaluation mode.
        tokens: the texts so far (B, T), the shorter ones padded on the left.
        attention_mask: 1 where `tokens` holds text and 0 where padding (B, T); by default all is text.
        max_new_tokens: how many ids come at most.
        sampler: how an id is chosen from logits; by default the likeliest.
        stop: ids that end a row; once every row has ended, no more come. With none, the device is waited for at the end alone.

    Raises:
        InputError: nothing to continue, padding at the end of a text, no new token asked for, or logits that are no numbers.
    """
    mask, choose = _padding(tokens, attention_mask, max_new_tokens), sampler or Greedy()
    longest = tokens.shape[1] + max_new_tokens
    cache = FixedCache(longest - 1)
    positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
    if mask is not None:
        positions, mask = (mask.cumsum(dim=1) - 1).clamp_min(0), F.pad(mask, (0, max_new_tokens), value=1)
    ends, ended = torch.tensor(sorted(stop), dtype=tokens.dtype, device=tokens.device), None
    # The sum of each step's largest logits: it is finite while they are.
    largest, over = torch.zeros((), device=tokens.device), False
    for length in range(tokens.shape[1], longest):
        logits = last_logits(decoder, tokens, positions, None if mask is None else mask[:, :length], cache)
        new, largest = choose(logits), largest + logits.amax(dim=-1).sum(dtype=torch.float32)
        if len(ends):
            new = new if ended is None else torch.where(ended, tokens[:, -1], new)
            ended = torch.isin(new, ends)
            over = bool(_number(ended.all() + 0 * largest))
        yield new
        if over:
            return
        tokens, positions = new[:, None], positions[:, -1:] + 1
    _number(largest)


def last_logits(decoder: Decoder, tokens: Tensor, positions: Tensor, attention_mask: Tensor | None, cache: Cache) -> Tensor:
    """Logits (B, V) after the last of `tokens` (B, T): the last block makes only keys and values of the others.

    Args:
        decoder: with its head.
        tokens: the last T of S positions; the cache holds the others.
        positions: theirs (B or 1, T).
        attention_mask: which of the S positions hold a token (B, S); None means all.
        cache: it is extended.
    """
    length = tokens.shape[1]
    seen = cache.get_seq_length() + length
    attend, mask = decoder.sight(length, seen, attention_mask, tokens.device)
    context = decoder.context(positions, mask, cache, attend)
    attend, mask = decoder.sight(1, seen, attention_mask, tokens.device)
    of_last = replace(context, mask=mask, attend=partial(_last_query, attend))

    def carry_out(block: Block, x: Tensor, context: Context, first: Tensor | None) -> tuple[Tensor, Tensor]:
        if length == 1 or block is not decoder.blocks[-1]:
            return block(x, context, first)
        y, own = block.attention(block.attention_residual.read(x), of_last, first)
        x = block.attention_residual.write(x[:, -1:], y)
        return block.mlp_residual.write(x, block.mlp(block.mlp_residual.read(x))), own

    x = last(decoder.through(decoder.embedding(tokens), context, carry_out))
    return decoder.logits(decoder.final(x))[:, 0]


def _number(value: Tensor) -> float:
    """The one number of a tensor, as soon as the device has it."""
    number = float(value)
    if not math.isfinite(number):
        raise InputError(
            "the model gives logits that are no finite numbers: its weights hold such ones, or are too large for their dtype; "
            "load it in float32, or take another checkpoint"
        )
    return number


def _last_query(attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float, dropout: float) -> Tensor:
    return attend(q[:, :, -1:], k, v, mask, scale, dropout)


def _padding(tokens: Tensor, attention_mask: Tensor | None, max_new_tokens: int) -> Tensor | None:
    """The mask (B, T) as whole numbers; None where it hides nothing."""
    if tokens.dim() != 2 or not tokens.numel():
        raise InputError(f"the tokens to continue have the shape {tuple(tokens.shape)}: give (rows, length), neither of them 0")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
    if attention_mask is None:
        return None
    if attention_mask.shape != tokens.shape:
        raise InputError(
            f"attention_mask is {tuple(attention_mask.shape)} and the tokens are {tuple(tokens.shape)}: give one each"
        )
    if not bool(attention_mask[:, -1].all()):
        raise InputError("attention_mask hides the end of a text, which cannot be continued then: pad on the left")
    return None if bool(attention_mask.all()) else attention_mask.long()
