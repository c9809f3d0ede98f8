"""The skeleton that every architecture fills with parts; it branches on none of them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.nn.attend import attention_named
from ngpt_lab.nn.attend_function import Attend, Situation, working_dtype
from ngpt_lab.nn.attention import Attention, Cache, Context
from ngpt_lab.nn.linear import StreamMatrix, TokenEmbedding, WeightMap, WriteLinear
from ngpt_lab.nn.masks import positions_within
from ngpt_lab.nn.next_token import mean_loss
from ngpt_lab.nn.slots import (
    MLP,
    Dims,
    FinalFactory,
    LMHead,
    LMHeadFactory,
    MLPFactory,
    QKNormFactory,
    Residual,
    ResidualFactory,
    RotaryFactory,
    ValueFactory,
)


class Block(nn.Module):
    """Attention, then the MLP, each reading from and writing to the residual stream through its residual part."""

    def __init__(self, attention: Attention, attention_residual: Residual, mlp: MLP, mlp_residual: Residual) -> None:
        super().__init__()
        self.attention, self.attention_residual = attention, attention_residual
        self.mlp, self.mlp_residual = mlp, mlp_residual

    def forward(self, x: Tensor, context: Context, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """The stream (B, T, C) to itself one block on, and the first layer's values."""
        y, own = self.attention(self.attention_residual.read(x), context, first)
        x = self.attention_residual.write(x, y)
        x = self.mlp_residual.write(x, self.mlp(self.mlp_residual.read(x)))
        return x, own if first is None else first


class Decoder(nn.Module):
    """A causal language model made of parts.

    Args:
        dims: the sizes.
        attention_residual: how attention moves the stream.
        mlp_residual: how the MLP moves the stream.
        qk_norm: what happens to queries and keys after the rotation.
        value: what happens to the values.
        mlp: the position-wise sublayer.
        rotary: the position embedding.
        final: what happens to the stream after the last block.
        lm_head: from the stream to logits.
        attention: the attention function, by its name in ngpt_lab.nn.attend; auto takes the fastest.
        attention_bias: whether the four attention matrices have biases.
        attention_dropout: dropout on the attention weights.
        weights: the stream matrices as the forward pass uses them: as_stored, or as_unit.
        initializer_range: standard deviation of the matrices at the start; those that write to the stream are divided by
            sqrt(2 n_layers).
    """

    # Whether the architecture expects its stream matrices at unit length after every step.
    on_sphere = False

    def __init__(
        self,
        dims: Dims,
        *,
        attention_residual: ResidualFactory,
        mlp_residual: ResidualFactory,
        qk_norm: QKNormFactory,
        value: ValueFactory,
        mlp: MLPFactory,
        rotary: RotaryFactory,
        final: FinalFactory,
        lm_head: LMHeadFactory,
        attention: str,
        attention_bias: bool,
        attention_dropout: float,
        weights: WeightMap,
        initializer_range: float,
    ) -> None:
        super().__init__()
        self.dims, self.attend, self.initializer_range = dims, attention_named(attention), initializer_range
        self.attention_dropout = attention_dropout
        # How a block is called; activation checkpointing takes its place.
        self.carry_out: Callable[..., Any] = Block.__call__
        self.embedding = TokenEmbedding(dims.vocab_size, dims.d_model)
        self.rotary = rotary(dims)
        self.blocks = nn.ModuleList(
            Block(
                Attention(dims, layer, qk_norm, value, attention_bias, attention_dropout),
                attention_residual(dims, layer),
                mlp(dims, layer),
                mlp_residual(dims, layer),
            )
            for layer in range(dims.n_layers)
        )
        self.final = final(dims)
        self.lm_head: LMHead | None = lm_head(dims, self.embedding.weight)
        for matrix in (part for part in self.modules() if isinstance(part, StreamMatrix)):  # a tied head's too
            matrix.std = initializer_range / ((2 * dims.n_layers) ** 0.5 if isinstance(matrix, WriteLinear) else 1)
            matrix.used_as = weights
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Everything learned back to step 0, with fresh matrices."""
        for part in self.modules():
            if part is not self:
                self.reset(part)

    def reset(self, part: nn.Module) -> None:
        """What one part of it owns, back to step 0; parts in their order draw what `reset_parameters` draws."""
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()

    def stream(self, tokens: Tensor, **seen: Any) -> list[Tensor]:
        """The residual stream after the embedding and after each block: n_layers + 1 tensors (B, T, C).

        The arguments are those of `enter`.
        """
        return list(self.through(*self.enter(tokens, **seen)))

    def features(self, tokens: Tensor, **seen: Any) -> Tensor:
        """What heads read: the stream after the final part (B, T, C); the arguments are those of `enter`."""
        return self.final(last(self.through(*self.enter(tokens, **seen))))

    def enter(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        """The embedded tokens (B, T, C), and what all blocks of one call share.

        Args:
            tokens: ids (B, T), the last T of S positions where a cache holds the others.
            positions: each token's position (B, T) or (T,); by default they count on from the cache, in each document from 0.
            attention_mask: which of the S positions hold a token (B, S), 1 or 0; by default all.
            cache: keys and values of the positions before `tokens`; it is extended.
            documents: which document each token belongs to (B, T), equal ids side by side: attention stays within a document,
                as if each stood alone. By default all tokens of a row are one document.

        Raises:
            InputError: documents together with a cache, which does not know whose keys it holds.
        """
        if cache is not None and documents is not None:
            raise InputError("documents cannot be told apart together with a cache: leave out one of the two")
        past = 0 if cache is None else cache.get_seq_length()
        length = tokens.shape[1]
        if positions is None:
            counted = torch.arange(past, past + length, device=tokens.device)
            positions = counted if documents is None else positions_within(documents)
        attend, mask = self.sight(length, past + length, attention_mask, tokens.device, documents)
        return self.embedding(tokens), self.context(positions, mask, cache, attend)

    def sight(
        self, queries: int, keys: int, attention_mask: Tensor | None, device: torch.device, documents: Tensor | None = None
    ) -> tuple[Attend, Any]:
        """The attention function for one call, and the mask it takes; the arguments are those of `causal_mask`."""
        situation = self.situation(
            device,
            working_dtype(device, self.embedding.weight.dtype),
            queries,
            keys,
            documents=documents is not None,
            padding=attention_mask is not None,
            dropout=self.attention_dropout if self.training else 0.0,
            gradients=torch.is_grad_enabled(),
            compiled=torch.compiler.is_compiling(),
        )
        function = self.attend.used(situation)
        return function.compute, function.prepare(queries, keys, attention_mask, device, documents)

    def situation(self, device: torch.device, dtype: torch.dtype, queries: int, keys: int, **known: Any) -> Situation:
        """What attention is computed on; the arguments are those of `Situation`."""
        return Situation(device, dtype, self.dims.n_heads, self.dims.n_kv_heads, self.dims.d_head, queries, keys, **known)

    def context(self, positions: Tensor, mask: Any, cache: Cache | None, attend: Attend) -> Context:
        """What all blocks of one call share.

        Args:
            positions: each token's position (B, T) or (T,).
            mask: whatever `attend` takes for one; None means causal.
            cache: keys and values of the positions before; it is extended.
            attend: the attention function.
        """
        table = self.rotary.table(torch.atleast_2d(positions))
        return Context(partial(self.rotary.rotate, table=table), mask, cache, attend)

    def through(self, x: Tensor, context: Context, call: Callable[..., Any] | None = None) -> Iterator[Tensor]:
        """The stream `x` (B, T, C), then what it is after each block; `call` carries a block out, by default `carry_out`."""
        yield x
        first = None
        for block in self.blocks:
            x, first = (call or self.carry_out)(block, x, context, first)
            yield x

    def take_head(self) -> LMHead:
        """Take the language model's head off and return it: a task's head can take its place, logits are had no more."""
        head, self.lm_head = self.lm_head, None
        if head is None:
            raise InputError("this decoder's language-model head has been taken off already: build it anew")
        return head

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, T, V) of features (B, T, C).

        Raises:
            InputError: the head has been taken off.
        """
        return self._head().logits(x)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        documents: Tensor | None = None,
        measure: Callable[[LMHead, Tensor, Tensor, int], Any] = mean_loss,
    ) -> Any:
        """Logits (B, T, V); with `targets` (B, T), the ids that follow (-100: left out), their mean cross-entropy in nats.

        `measure` is what is asked of the targets, of `ngpt_lab.nn.next_token`. The other arguments are those of `enter`.
        """
        x = self.features(tokens, positions=positions, attention_mask=attention_mask, cache=cache, documents=documents)
        return self.logits(x) if targets is None else measure(self._head(), x, targets, self.dims.vocab_size)

    def _head(self) -> LMHead:
        if self.lm_head is None:
            raise InputError("this decoder's language-model head has been taken off: it gives no logits")
        return self.lm_head


def last(stream: Iterator[Tensor]) -> Tensor:
    """The last of what `Decoder.through` gives; without gradients, nothing of the others is held."""
    for x in stream:  # noqa: B007
        pass
    return x
