"""What transformers' losses leave to torch: a wide logit's precision, and a clear word about a label that is out of range.

Labels are looked at where that costs nothing: on a CPU, and not in compiled code. An accelerator would have to be waited for at
every step: there, torch's own device assert speaks.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.sphere import widen


def next_token_loss(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = IGNORED,
    shift_labels: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Mean cross-entropy in nats of each position against the next one's label, in float32 or wider.

    The number of transformers' `ForCausalLMLoss`, by the same arguments; but float64 stays as wide as it is, and labels are
    looked at first.

    Args:
        logits: (B, T, V).
        labels: the tokens themselves (B, T), not shifted.
        vocab_size: V.
        num_items_in_batch: what the sum is divided by; by default the number of labels.
        ignore_index: the label that is left out.
        shift_labels: labels (B, T) that are shifted already, in place of `labels`.

    Raises:
        InputError: a label outside the vocabulary, other than `ignore_index`; see `refuse_labels`.
    """
    following = F.pad(labels, (0, 1), value=ignore_index)[..., 1:] if shift_labels is None else shift_labels
    refuse_labels(following, vocab_size, ignore_index)
    wide, targets = widen(logits).reshape(-1, vocab_size), following.reshape(-1).to(logits.device)
    if num_items_in_batch is None:
        return F.cross_entropy(wide, targets, ignore_index=ignore_index)
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    return F.cross_entropy(wide, targets, ignore_index=ignore_index, reduction="sum") / num_items_in_batch


def pooled_loss(loss: Callable[..., Tensor], *, labels: Tensor, config: Any, **seen: Any) -> Tensor:
    """`loss` of a sequence classifier, its labels looked at first."""
    single = config.problem_type in (None, "single_label_classification") and config.num_labels > 1
    if single and not labels.is_floating_point():
        refuse_labels(labels, config.num_labels)
    return loss(labels=labels, config=config, **seen)


def token_loss(loss: Callable[..., Tensor], logits: Tensor, labels: Tensor, config: Any, **seen: Any) -> Tensor:
    """`loss` of a token classifier, its labels looked at first."""
    refuse_labels(labels, config.num_labels)
    return loss(logits, labels, config, **seen)


def refuse_labels(labels: Tensor, count: int, ignored: int = IGNORED) -> None:
    """Refuse labels outside 0 ... count - 1, if they are on a CPU and nothing is being compiled.

    Raises:
        InputError: there is one, other than `ignored`.
    """
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    wrong = labels[(labels != ignored) & ((labels < 0) | (labels >= count))]
    if wrong.numel():
        raise InputError(
            f"labels: {int(wrong[0])} is none of the {count} that this model tells apart: use 0 to {count - 1}, or {ignored} "
            "to leave a position out"
        )
