"""The next token's cross-entropy: from whole logits at a small vocabulary, chunk by chunk at a large one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.nn.chunked_loss import chunked_cross_entropy, chunked_scores, product_dtype
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.nn.product import product
from ngpt_lab.nn.slots import LMHead
from ngpt_lab.sphere import widen

# Below this vocabulary chunks save little memory and no time; from here on they cost none (`ngpt-lab bench loss`).
LARGE = 2048


def mean_loss(head: LMHead, x: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Mean cross-entropy in nats of the final stream (B, T, C) against targets (B, T), -100 left out; float32 or wider."""
    if vocab_size < LARGE:
        return cross_entropy(head.logits(x), targets)
    features, matrix = head(x)
    if product_dtype(matrix) == torch.float16:
        # A token's share of the mean is too small a number for it before the loss is scaled.
        return cross_entropy(product(features, matrix), targets)
    return chunked_cross_entropy(features, matrix, targets)


@torch.no_grad()
def token_scores(head: LMHead, x: Tensor, targets: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Each token's loss in nats, and whether its target has the largest logit, both (B, T); 0 and False at -100.

    The arguments are those of `mean_loss`.
    """
    if vocab_size >= LARGE:
        features, matrix = head(x)
        return chunked_scores(features, matrix, targets)
    logits = widen(head.logits(x))
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)
    return losses, (logits.argmax(dim=-1) == targets) & (targets != IGNORED)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (B, T, V) against targets (B, T), -100 left out; in float32 or wider."""
    return F.cross_entropy(widen(logits).flatten(0, -2), targets.flatten())
