"""Products with a matrix; on a CPU in float32 by the faster of torch's two libraries.

torch multiplies float32 by MKL, which leaves the 512-bit vectors of other makers' CPUs unused. oneDNN uses them: torch has it
for narrower dtypes and for compiled inference, but no setting that takes it here.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mkl_leaves_vectors_unused() -> bool:
    """Whether this is an AMD CPU that has 512-bit vectors, in a torch that has both libraries."""
    if sys.platform != "linux" or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in Path("/proc/cpuinfo").read_text()


MKL_IS_SLOW = mkl_leaves_vectors_unused()
# Multiply-adds from which on oneDNN takes less time than MKL on one thread, what it costs to call it included.
WORTH_A_CALL = 2**23


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in) times (out, in) to (..., out), in the weight's dtype or autocast's."""
    # Autocast narrows x by itself: widened here, it would be copied twice.
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    if not by_onednn(x, weight):
        return F.linear(x, weight, bias)
    y = _by_onednn(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias


def times(a: Tensor, b: Tensor) -> Tensor:
    """(N, K) times (M, K) to (N, M), in their own dtype and without autocast; of a transposed view, oneDNN copies `a`."""
    return _by_onednn(a, b) if by_onednn(a, b) else torch.mm(a, b.T)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is called for the product of (..., in) and (out, in)."""
    return (
        MKL_IS_SLOW
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and x.numel() * weight.shape[0] >= WORTH_A_CALL
    )


@torch.library.custom_op("ngpt_lab::product", mutates_args=(), device_types="cpu")
def _by_onednn(x: Tensor, weight: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


@_by_onednn.register_fake
def _empty_product(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])  # len() would fix the size of a compiled graph


def _keep_factors(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _by_factors(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    of_x, of_weight = ctx.needs_input_grad
    return _by_onednn(grad, weight.T) if of_x else None, _by_onednn(grad.T, x.T) if of_weight else None


_by_onednn.register_autograd(_by_factors, setup_context=_keep_factors)

# What multiplies by oneDNN, as dispatch sees it.
OPERATOR = torch.ops.ngpt_lab.product.default
