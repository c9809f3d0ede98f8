"""The package flash-attn, and attention over documents laid end to end."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.nn.attend_function import ON_GPU_IN_HALF, AttentionFunction, each_query_head, own_name
from ngpt_lab.nn.masks import first_of_document

PACKAGE = "flash_attn", "flash-attn 2 (pip install 'ngpt-lab[flash]')"


def flash(q: Tensor, k: Tensor, v: Tensor, mask: None, scale: float, dropout: float) -> Tensor:
    """flash-attn 2; see `Attend`.

    Raises:
        InputError: it is not installed.
    """
    try:  # where transformers reads which packages a file needs, it passes over what is tried
        from flash_attn import flash_attn_func  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"attention is 'flash', and {PACKAGE[1]} is not installed: use 'auto', 'sdpa' or 'eager'") from error
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y: Tensor = flash_attn_func(q, k, v, dropout_p=dropout, softmax_scale=scale, causal=True)
    return y.transpose(1, 2)


def varlen(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """torch's attention over sequences of different lengths; see `Attend`. The mask is that of `document_ends`."""
    from torch.nn.attention.varlen import varlen_attn

    batch, _, queries, _ = q.shape
    keys, device = k.shape[-2], q.device
    k, v = each_query_head(q, k, v)
    if mask is None:
        ends_q, ends_k = (torch.arange(batch + 1, dtype=torch.int32, device=device) * length for length in (queries, keys))
    else:
        ends_q = ends_k = mask
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    y: Any = varlen_attn(q, k, v, ends_q, ends_k, queries, keys, scale=scale, window_size=(-1, 0))
    return y.unflatten(0, (batch, queries)).transpose(1, 2)


def no_mask(*_: Any) -> None:
    """The mask of a kernel that takes none, and takes the queries for the last positions."""


def document_ends(
    queries: int, keys: int, attention_mask: None, device: torch.device, documents: Tensor | None = None
) -> Tensor | None:
    """Where documents (B, T) begin and end, all rows laid end to end: (documents + 1,) int32; None where a row is one.

    How many there are is known to the device alone: it is waited for once a call.
    """
    if documents is None:
        return None
    begins = first_of_document(documents).flatten().nonzero().flatten()
    return torch.cat((begins, begins.new_full((1,), documents.numel()))).int()


def graphs_of_any_size() -> None:
    """Let compiled graphs hold tensors whose size depends on numbers, as that of `document_ends` does."""
    import torch._dynamo

    torch._dynamo.config.capture_dynamic_output_shape_ops = True


FLASH = AttentionFunction(
    "flash",
    flash,
    partial(own_name, "flash-attn 2"),
    no_mask,
    replace(ON_GPU_IN_HALF, no_mask_on=("cuda",), package=("flash_attn", "flash-attn 2 (pip install 'ngpt-lab[flash]')")),
)
VARLEN = AttentionFunction(
    "varlen",
    varlen,
    partial(own_name, "torch varlen_attn"),
    document_ends,
    replace(ON_GPU_IN_HALF, no_dropout_on=("cuda",), no_padding=True),
    graphs_of_any_size,
)
