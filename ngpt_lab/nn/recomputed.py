"""What a compiled step computes again in its backward pass instead of keeping it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, of which a compiled training step keeps the arguments alone for its backward pass.

    For chains of element-wise operations and norms: the compiler fuses them with the gradients that need them, where by
    itself it keeps what lies between them. Without a compiler nothing is fused, and computing again would cost a pass more.
    """
    if not torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)
