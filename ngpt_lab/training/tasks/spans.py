"""Extractive question answering."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.text import SQuAD

from ngpt_lab.data.tasks.batches import SpanBatch
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.nn.heads import SpanHead, span_loss
from ngpt_lab.training.evaluation import Evaluation, on_device
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule
from ngpt_lab.training.tasks.module import SPLITS, TaskModule


class QuestionAnswering(TaskModule):
    """The span of a text that answers a question.

    Args:
        backbone: the decoder, whose own head is taken off.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        longest_answer: tokens of the longest answer that is given.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
        activation_checkpointing: which blocks compute activations again in the backward pass; by default none.
    """

    head: SpanHead

    def __init__(
        self,
        backbone: Decoder,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        longest_answer: int = 64,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        if longest_answer < 1:
            raise InputError(f"longest_answer is {longest_answer}: it must be at least 1")
        super().__init__(
            backbone,
            SpanHead(backbone.dims.d_model, backbone.initializer_range),
            optimizer,
            schedule,
            compile,
            activation_checkpointing,
        )
        self.longest_answer = longest_answer
        self.evaluations = {split: Evaluation({"answers": Answers()}) for split in SPLITS}

    def scores(self, batch: SpanBatch) -> tuple[Tensor, Tensor]:
        """Of every token as the start and as the end, both (B, T)."""
        return self.head(self.features(batch))

    def loss(self, batch: SpanBatch) -> Tensor:
        """See `TaskModule`."""
        return span_loss(*self.scores(batch), batch.starts, batch.ends)

    def evaluate(self, batch: SpanBatch, split: str) -> None:
        """See `TaskModule`; each question is answered from that of its windows whose best span has the highest score."""
        starts, ends = self.scores(batch)
        self.evaluations[split].update(span_loss(starts, ends, batch.starts, batch.ends), len(batch.tokens))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        best: dict[int, tuple[float, int, int, int]] = {}
        spans = best_spans(starts, ends, batch.context, self.longest_answer)
        for score, start, end, index in zip(*(part.tolist() for part in (*spans, batch.index)), strict=True):
            question = data.question(index)
            best[question] = max(best.get(question, (-torch.inf, 0, 0, index)), (score, start, end, index))
        answers = on_device(self.evaluations[split].metrics["answers"], starts.device)
        for _, start, end, index in best.values():
            answers.update(data.answer(index, start, end), data.references(index))

    def predict_step(self, batch: SpanBatch, batch_idx: int) -> dict[str, Tensor]:
        """Of every window its number `index`, and the first and the last token of its best span with its score, each (B,)."""
        score, start, end = best_spans(*self.scores(batch), batch.context, self.longest_answer)
        return {"index": batch.index, "start": start, "end": end, "score": score}


class Answers(SQuAD):
    """Exact match and F1 of answers, as SQuAD's own script counts them, between 0 and 1."""

    def update(self, answer: str, references: list[str]) -> None:
        """Count an answer, given all that are right."""
        texts = references or [""]
        truth: dict[str, Any] = {"id": "0", "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        super().update([{"id": "0", "prediction_text": answer}], [truth])

    def compute(self) -> dict[str, Any]:
        """Both; the script's own are percentages."""
        return {name: value / 100 for name, value in super().compute().items()}


def best_spans(starts: Tensor, ends: Tensor, context: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The span with the highest sum of its start's and its end's score, in each row.

    Args:
        starts: scores (B, T).
        ends: scores (B, T).
        context: where a span may begin and end (B, T) bool.
        longest: tokens of the longest span.

    Returns:
        The sum, the first token and the last token, each (B,); the sum is -inf in a row without context.
    """
    starts, ends = (scores.float().masked_fill(~context, -torch.inf) for scores in (starts, ends))
    best = torch.full_like(starts[:, 0], -torch.inf)
    first = last = torch.zeros(len(starts), dtype=torch.int64, device=starts.device)
    for more in range(min(longest, starts.shape[1])):
        sums, at = (starts[:, : starts.shape[1] - more] + ends[:, more:]).max(dim=1)
        better = sums > best
        best, first, last = best.where(~better, sums), first.where(~better, at), last.where(~better, at + more)
    return best, first, last
