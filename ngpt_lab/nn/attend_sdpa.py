"""torch's scaled_dot_product_attention: as it chooses its kernel, or with one named."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import (
    SDPBackend,
    activate_flash_attention_impl,
    current_flash_attention_impl,
    restore_flash_attention_impl,
    sdpa_kernel,
)

from ngpt_lab.nn.attend_function import (
    ON_GPU_IN_HALF,
    AttentionFunction,
    Limits,
    Situation,
    each_query_head,
    own_name,
)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """torch's fused attention; see `Attend`. The mask is (B or 1, 1, T, S), true where a key is seen."""
    # On a GPU only the kernels for half precision without a mask share key heads; without them, all scores would be formed.
    if q.is_cuda and (mask is not None or v.dtype.itemsize > 2):
        k, v = each_query_head(q, k, v)
    grouped, causal = q.shape[1] != k.shape[1], mask is None
    if q.shape[-2] == 1:  # a branch: where lengths vary, the comparison itself is a symbol to the compiler, which torch refuses
        causal = False
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def sdpa_by(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """`sdpa` by one of torch's kernels."""
    if backend == SDPBackend.EFFICIENT_ATTENTION:
        k, v = each_query_head(q, k, v)
    with sdpa_kernel(backend):
        return sdpa(q, k, v, mask, scale, dropout)


def implement_flash(name: str | None) -> None:
    """Have torch's flash attention computed by the implementation of that name, in this process; None for torch's own."""
    if current_flash_attention_impl() == name:
        return
    if name is None:
        restore_flash_attention_impl()
    else:
        activate_flash_attention_impl(name)


def chosen_by_torch(s: Situation) -> str:
    """The kernel that `sdpa` comes to."""
    q, k, v = (
        torch.empty(1, heads, length, s.d_head, dtype=s.dtype, device=s.device)
        for heads, length in ((s.heads, s.queries), (s.kv_heads, s.keys), (s.kv_heads, s.keys))
    )
    mask = torch.ones(1, 1, s.queries, s.keys, dtype=torch.bool, device=s.device) if s.masked else None
    if s.device.type == "cuda" and (mask is not None or s.dtype.itemsize > 2):
        k, v = each_query_head(q, k, v)
    q.requires_grad_(s.gradients)
    causal, grouped = mask is None and s.queries > 1, q.shape[1] != k.shape[1]
    number = torch._fused_sdp_choice(q, k, v, mask, s.dropout, causal, enable_gqa=grouped)
    return SDPBackend(number).name.removesuffix("_ATTENTION").lower()


CAUSAL_ON_GPU = replace(ON_GPU_IN_HALF, no_mask_on=("cuda",))
WITHOUT_DROPOUT = replace(CAUSAL_ON_GPU, no_dropout_on=("cuda",))
BY_FLASH = partial(sdpa_by, SDPBackend.FLASH_ATTENTION)

SDPA = AttentionFunction("sdpa", sdpa, chosen_by_torch)
SDPA_MATH = AttentionFunction("sdpa-math", partial(sdpa_by, SDPBackend.MATH), partial(own_name, "math"))
SDPA_EFFICIENT = AttentionFunction(
    "sdpa-efficient",
    partial(sdpa_by, SDPBackend.EFFICIENT_ATTENTION),
    partial(own_name, "efficient"),
    limits=Limits(devices=("cuda",)),
)
SDPA_CUDNN = AttentionFunction(
    "sdpa-cudnn", partial(sdpa_by, SDPBackend.CUDNN_ATTENTION), partial(own_name, "cudnn"), limits=CAUSAL_ON_GPU
)
SDPA_FLASH = AttentionFunction(
    "sdpa-flash",
    BY_FLASH,
    partial(own_name, "flash"),
    limits=replace(CAUSAL_ON_GPU, devices=("cpu", "cuda"), no_dropout_on=("cpu",)),
    make_ready=partial(implement_flash, None),
)
FLASH3 = AttentionFunction(
    "flash3",
    BY_FLASH,
    partial(own_name, "FA3"),
    limits=replace(WITHOUT_DROPOUT, package=("flash_attn_interface", "FlashAttention 3"), capability=(9,)),
    make_ready=partial(implement_flash, "FA3"),
)
FLASH4 = AttentionFunction(
    "flash4",
    BY_FLASH,
    partial(own_name, "FA4"),
    limits=replace(WITHOUT_DROPOUT, package=("flash_attn.cute", "FlashAttention 4"), capability=(9, 10)),
    make_ready=partial(implement_flash, "FA4"),
)
