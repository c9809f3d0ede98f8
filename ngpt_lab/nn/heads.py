"""Heads that read the final stream for other tasks than the next token, and their losses, as Hugging Face's models have them.

A head's matrix is free also where the backbone lives on the sphere. Its logits are in the matrix's dtype (or autocast's); every
loss is computed in float32 or wider. Where labels lie on the CPU and nothing is compiled, a label out of range is refused by
name: on a GPU to look would make every step wait for it, and a compiler cannot. The data of a run has looked already.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.sphere import widen


class SequenceHead(nn.Module):
    """Scores of a sequence, read at its last token.

    Args:
        d_model: width of the stream.
        num_labels: how many scores.
        pad_token_id: what sequences are padded with, left or right; None where each comes alone.
        std: standard deviation of the matrix at the start.
    """

    def __init__(self, d_model: int, num_labels: int, pad_token_id: int | None, std: float = 0.02) -> None:
        super().__init__()
        self.pad_token_id, self.std = pad_token_id, std
        self.score = nn.Linear(d_model, num_labels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to step 0."""
        start(self.score, self.std)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The final stream (B, T, C) of tokens (B, T) to scores (B, num_labels).

        The last token is the rightmost one whose id is not `pad_token_id`: the ids decide, not a mask.

        Raises:
            InputError: several sequences, and no `pad_token_id` to tell where each ends.
        """
        return read(self.score, x[torch.arange(len(tokens), device=x.device), self.last(tokens)])

    def last(self, tokens: Tensor) -> Tensor:
        """Where the last token of each row of (B, T) stands (B,); 0 where a row is all padding."""
        if self.pad_token_id is None:
            if len(tokens) > 1:
                raise InputError(
                    f"a batch of {len(tokens)} sequences needs a padding token to tell where each ends: set pad_token_id, or "
                    "give one sequence at a time"
                )
            return tokens.new_full((len(tokens),), tokens.shape[1] - 1)
        at = torch.arange(tokens.shape[1], device=tokens.device)
        return (at * (tokens != self.pad_token_id)).argmax(dim=-1)


class TokenHead(nn.Module):
    """Scores of every token.

    Args:
        d_model: width of the stream.
        num_labels: how many scores.
        dropout: of the stream, in training.
        std: standard deviation of the matrix at the start.
    """

    def __init__(self, d_model: int, num_labels: int, dropout: float = 0.1, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(d_model, num_labels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to step 0."""
        start(self.score, self.std)

    def forward(self, x: Tensor) -> Tensor:
        """The final stream (B, T, C) to scores (B, T, num_labels)."""
        return read(self.score, self.dropout(x))


class SpanHead(nn.Module):
    """How well a span begins, and ends, at every token.

    Args:
        d_model: width of the stream.
        std: standard deviation of the matrix at the start.
    """

    def __init__(self, d_model: int, std: float = 0.02) -> None:
        super().__init__()
        self.std = std
        self.qa_outputs = nn.Linear(d_model, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to step 0."""
        start(self.qa_outputs, self.std)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The final stream (B, T, C) to scores of the start and of the end, both (B, T)."""
        starts, ends = read(self.qa_outputs, x).unbind(dim=-1)
        return starts, ends


def start(linear: nn.Linear, std: float) -> None:
    """A normal of standard deviation `std`; a bias of zero."""
    nn.init.normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def read(linear: nn.Linear, x: Tensor) -> Tensor:
    """The stream, which is in float32 or wider, through a matrix of any dtype."""
    return linear(x.to(linear.weight.dtype))


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (..., n) against classes (...), -100 left out; 0 where all are left out.

    Raises:
        InputError: labels that are no classes, or, where they can be looked at, beyond the classes there are.
    """
    count = logits.shape[-1]
    expect(labels, logits.shape[:-1], "one class each")
    if labels.is_floating_point():
        raise InputError("a label of one class each must be a whole number: give the class's number, or another problem type")
    if can_be_looked_at(labels):
        outside = labels[((labels < 0) | (labels >= count)) & (labels != IGNORED)]
        if len(outside):
            raise InputError(f"there is a label {int(outside[0])}, and the model has {count} labels, 0 to {count - 1}")
    return mean_cross_entropy(logits.flatten(0, -2), labels.flatten(), IGNORED)


def multi_label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy in nats of logits (B, n) against labels (B, n) between 0 and 1.

    Raises:
        InputError: labels of another shape, or, where they can be looked at, outside of 0 to 1.
    """
    expect(labels, logits.shape, "a 0 or 1 for each of its labels")
    if can_be_looked_at(labels):
        outside = labels[(labels < 0) | (labels > 1)]
        if len(outside):
            told = f"{float(outside[0]):g}"
            raise InputError(f"there is a label {told} for one of the model's {logits.shape[-1]} labels: each must be 0 or 1")
    logits = widen(logits)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def regression_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of numbers (B, n) against labels (B, n), or (B,) where n is 1.

    Raises:
        InputError: labels of another shape.
    """
    if logits.shape[-1] == 1 and labels.dim() == logits.dim() - 1:
        labels = labels[..., None]
    expect(labels, logits.shape, "as many numbers as the model has labels")
    logits = widen(logits)
    return F.mse_loss(logits, labels.to(logits.dtype))


def span_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The mean of the start's and the end's cross-entropy over all T positions, in nats.

    Args:
        start_logits: (B, T).
        end_logits: (B, T).
        starts: the true starts (B,); those beyond the positions do not count, and negative ones count as 0.
        ends: the true ends, likewise.
    """
    beyond = start_logits.shape[1]
    losses = [
        mean_cross_entropy(logits, places.clamp(0, beyond), beyond)
        for logits, places in ((start_logits, starts), (end_logits, ends))
    ]
    return torch.stack(losses).mean()


def mean_cross_entropy(logits: Tensor, targets: Tensor, ignored: int) -> Tensor:
    """Of logits (N, n) against targets (N,) that are not `ignored`; 0 where all are, so that a step can go on."""
    total = F.cross_entropy(widen(logits), targets, ignore_index=ignored, reduction="sum")
    return total / (targets != ignored).sum().clamp_min(1)


def can_be_looked_at(labels: Tensor) -> bool:
    """Whether the values of labels are at hand: on the CPU, and not in a graph that is being compiled."""
    return labels.device.type == "cpu" and not torch.compiler.is_compiling()


def expect(labels: Tensor, shape: torch.Size, what: str) -> None:
    """Refuse labels of another shape."""
    if labels.shape != shape:
        raise InputError(f"labels of shape {list(labels.shape)} where {list(shape)} belongs: give {what}")
