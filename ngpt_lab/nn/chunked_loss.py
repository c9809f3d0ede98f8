"""Mean cross-entropy over (features, matrix) that never holds the whole logits (B*T, V), nor their gradient.

Tokens come a chunk at a time. While a chunk's logits are there its share of both gradients is made of them too, so that the
backward pass has nothing left to compute: three matrix products, as with whole logits, and the memory of one chunk.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.nn.product import by_onednn, times
from ngpt_lab.sphere import widen

# Logits (n, V) and targets (n, 1) to losses and sums, both (n, 1); see `_exponentials_`.
Exponentials = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

# A chunk's logits take at most this share of the memory of all of them in float32, but it has this many tokens at least: below
# them the matrix products lose their speed.
SHARE = 12
FEWEST = 256
# How many numbers are gone over several times in a row: on a CPU as many as its cache holds, elsewhere a twelfth of them, which
# take memory beside the chunk's, but enough to be worth a kernel.
AT_A_TIME = {"cpu": 2**20}
ELSEWHERE = 12, 2**20


def chunked_cross_entropy(features: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the logits `features @ matrix.T`, in float32 or wider.

    Products are of autocast's dtype, else of the matrix's; log-sum-exp, the loss and the sums over chunks are float32 or wider.

    Args:
        features: (B, T, C).
        matrix: (V, C), scales and all.
        targets: the ids that follow (B, T); -100 is left out.
    """
    x, t, dtype = features.flatten(0, -2), targets.flatten(), product_dtype(matrix)
    if torch.is_grad_enabled() and (x.requires_grad or matrix.requires_grad):
        return _loss_and_gradients(x, matrix, t, dtype, torch.compiler.is_compiling())[0]
    losses, _ = _scores(x, matrix, t, dtype)
    return losses.sum() / (t != IGNORED).sum()


def chunked_scores(features: Tensor, matrix: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's cross-entropy in nats and whether its target has the largest logit, both (B, T); 0 and False at -100.

    The arguments are those of `chunked_cross_entropy`; there is no gradient.
    """
    x, t = features.detach().flatten(0, -2), targets.flatten()
    losses, right = _scores(x, matrix.detach(), t, product_dtype(matrix))
    return losses.view(targets.shape), right.view(targets.shape)


def product_dtype(matrix: Tensor) -> torch.dtype:
    """What products with `matrix` are computed in."""
    kind = matrix.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else matrix.dtype


# An operator of its own, so that the compiler neither unrolls the chunks nor keeps the logits for the backward pass.
@torch.library.custom_op("ngpt_lab::loss_and_gradients", mutates_args=())
def _loss_and_gradients(
    x: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype, compiled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss of (N, C), (V, C) and (N,), and its gradients by the first two."""
    exponentials: Exponentials = _fused_exponentials_() if compiled and x.is_cuda else _exponentials_
    w, counted = matrix.to(dtype), targets != IGNORED
    by_x, by_matrix = torch.empty_like(x), torch.zeros_like(matrix, dtype=_wide(matrix.dtype))
    losses, count = torch.empty_like(targets, dtype=_wide(dtype)), counted.sum()
    rows = _tokens_at_a_time(x, w)
    with torch.autocast(x.device.type, enabled=False):
        for i in range(0, len(x), rows):
            at = slice(i, i + rows)
            some, keep, target = x[at], counted[at, None], targets[at, None].where(counted[at, None], 0)
            near = some.to(dtype)
            z = times(near, w)
            loss, total = exponentials(z, target)
            losses[at] = loss.where(keep, 0)[:, 0]
            # Softmax is z / total: a factor of the row, cheaper on (N, C) than on (N, V).
            share = torch.where(keep, 1 / (total * count), 0)  # not a product: 0 where none is counted, and the loss is NaN
            by_x[at] = times(z, w.T) * share
            _add_product_(by_matrix, z.T, (some * share).to(dtype))
            del z  # before the next is made
    return losses.sum() / count, by_x, by_matrix.to(matrix.dtype)


@_loss_and_gradients.register_fake
def _(x: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype, compiled: bool) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty((), dtype=_wide(dtype)), torch.empty_like(x), torch.empty_like(matrix)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.compiled, ctx.used_up = inputs[-1], False
    ctx.save_for_backward(*output[1:])


def _scaled(ctx: Any, by_loss: Tensor, *second: Tensor | None) -> tuple[Tensor | None, ...]:
    if ctx.used_up or any(gradient is not None for gradient in second):
        raise RuntimeError("the chunked loss can be differentiated once: take more from the cross-entropy of whole logits")
    by_x, by_matrix = ctx.saved_tensors
    if ctx.compiled:
        return by_x * by_loss, by_matrix * by_loss, None, None, None
    # In place: one more of the matrix's size may take as much as a quarter of the logits.
    ctx.used_up = True
    return by_x.mul_(by_loss).detach(), by_matrix.mul_(by_loss).detach(), None, None, None


_loss_and_gradients.register_autograd(_scaled, setup_context=_keep)


@torch.library.custom_op("ngpt_lab::token_scores", mutates_args=())
def _scores(x: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Each token's loss, and whether its target is the likeliest; both (N,)."""
    w, counted = matrix.to(dtype), targets != IGNORED
    losses = torch.empty_like(targets, dtype=_wide(dtype))
    right = torch.empty_like(counted)
    rows = _tokens_at_a_time(x, w)
    with torch.autocast(x.device.type, enabled=False):
        for i in range(0, len(x), rows):
            at = slice(i, i + rows)
            near, keep, target = x[at].to(dtype), counted[at], targets[at].where(counted[at], 0)
            z = times(near, w)
            right[at] = (z.argmax(dim=1) == target) & keep
            losses[at] = torch.cat([_losses(*few) for few in _few_at_a_time(z, target)]).where(keep, 0)
            del z
    return losses, right


@_scores.register_fake
def _(x: Tensor, matrix: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.empty_like(targets, dtype=_wide(dtype)), torch.empty_like(targets, dtype=torch.bool)


def _exponentials_(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, V) in place to exp(z - max), their sum taken off where the target (n, 1) is; the losses and sums (n, 1)."""
    done = [_few_exponentials_(*few) for few in _few_at_a_time(z, target)]
    return tuple(map(torch.cat, zip(*done, strict=True)))  # type: ignore[return-value]


def _losses(z: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(widen(z), target, reduction="none")


def _few_exponentials_(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    wide = widen(z)
    top, aim = wide.amax(dim=1, keepdim=True), wide.gather(1, target)
    total = wide.sub_(top).exp_().sum(dim=1, keepdim=True)
    wide.scatter_add_(1, target, -total)
    if wide is not z:
        z.copy_(wide)
    return total.log() + top - aim, total


@cache
def _fused_exponentials_() -> Exponentials:
    """The same, compiled when it is first needed: the compiler takes long to import."""
    return torch.compile(_comparing_exponentials_)


def _comparing_exponentials_(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The same; a comparison is fused with its neighbours, a scatter is not."""
    wide = widen(z)
    top, aim = wide.amax(dim=1, keepdim=True), wide.gather(1, target)
    terms = (wide - top).exp()
    total = terms.sum(dim=1, keepdim=True)
    z.copy_(torch.where(torch.arange(z.shape[1], device=z.device) == target, terms - total, terms))
    return total.log() + top - aim, total


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a (V, n) times b (n, C) to the total (V, C), which may be wider."""
    if total.dtype == a.dtype and not by_onednn(a, b.T):
        total.addmm_(a, b)
        return
    for some, of_a in _few_at_a_time(total, a):
        some.add_(times(of_a, b.T))


def _few_at_a_time(x: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of two tensors, as many at a time as the size of `x` allows."""
    rows = _at_a_time(x)
    return zip(x.split(rows), beside.split(rows), strict=True)


def _at_a_time(x: Tensor) -> int:
    """How many rows of `x`."""
    parts, fewest = ELSEWHERE
    return max(1, AT_A_TIME.get(x.device.type, max(fewest, x.numel() // parts)) // x.shape[1])


def _tokens_at_a_time(x: Tensor, w: Tensor) -> int:
    """How many tokens a chunk has."""
    return min(len(x), max(FEWEST, len(x) * 4 // (SHARE * w.element_size())))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
