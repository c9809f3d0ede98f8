"""The modules of the tasks, in plain Python: what they learn, measure and refuse."""

import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from ngpt_lab.data.tasks.batches import SpanBatch, TextBatch
from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Decoder, Dims, Nemotron
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.nn.linear import weight_error
from ngpt_lab.training import (
    AdamW,
    BackboneModule,
    Cosine,
    NormalizeWeights,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from ngpt_lab.training.evaluation import Evaluation
from ngpt_lab.training.tasks import MultiLabel, Regression, SingleLabel
from ngpt_lab.training.tasks.metrics import TASK_METRICS
from ngpt_lab.training.tasks.span_f1 import SpanF1, are_spans, spans
from ngpt_lab.training.tasks.spans import best_spans

PAD = 31
DIMS = Dims(32, 32, 2, 2, 1, 16, 64, "ngpt-short")
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y"]


def rows(count: int) -> tuple[Tensor, Tensor]:
    """Tokens below 20 in rows of different lengths, and their mask."""
    tokens, lengths = torch.randint(0, 20, (count, 10)), torch.randint(6, 11, (count, 1))
    mask = (torch.arange(10) < lengths).long()
    return tokens.masked_fill(mask == 0, PAD), mask


class Made(LightningDataModule):
    """One batch again and again, which is also what is held out by default, and what is asked of a data module."""

    vocab_size, pad_token_id = 32, PAD
    held_out: Sequence[NamedTuple] = ()

    def __init__(self, batch: NamedTuple, **told: Any) -> None:
        super().__init__()
        self.batch = batch
        for name, value in told.items():
            setattr(self, name, value)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self.batch] * 1000, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(list(self.held_out) or [self.batch], batch_size=None)

    test_dataloader = predict_dataloader = val_dataloader


class MadeSpans(Made):
    """Answers are the numbers of their tokens; windows 2i and 2i + 1 are of question i."""

    def question(self, index: int) -> int:
        return index // 2

    def answer(self, index: int, start: int, end: int) -> str:
        return " ".join(f"{at}" for at in range(start, end + 1))

    def references(self, index: int) -> list[str]:
        pair = slice(index - index % 2, index - index % 2 + 2)
        start, end = (int(places[pair].max()) for places in (self.batch.starts, self.batch.ends))
        return [self.answer(index, start, end)]


def sequences(labels: Callable[[Tensor], Tensor]) -> Made:
    """Labelled by which of two tokens stands in the first place."""
    tokens, mask = rows(64)
    tokens[:, 0] = torch.arange(64) % 2
    return Made(TextBatch(tokens, mask, labels(tokens[:, 0])))


def tagged() -> Made:
    """Every token's tag is its number modulo the tags; padding and each second column has none."""
    tokens, mask = rows(32)
    labels = (tokens % len(TAGS)).masked_fill((mask == 0) | (torch.arange(10) % 2 == 1), -100)
    return Made(TextBatch(tokens, mask, labels), label_names=TAGS, num_labels=len(TAGS))


def answered() -> MadeSpans:
    """An answer goes from token 21 to the next token 22; every second window holds none."""
    tokens, mask = rows(32)
    starts, ends = torch.randint(1, 3, (32,)), torch.randint(4, 6, (32,))
    tokens[range(32), starts], tokens[range(32), ends] = 21, 22
    tokens[1::2] = torch.where(tokens[1::2] > 20, 3, tokens[1::2])
    tokens[:, 0] = 30
    starts[1::2], ends[1::2] = 0, 0
    context = (mask == 1) & (torch.arange(10) > 0)
    return MadeSpans(SpanBatch(tokens, mask, starts, ends, torch.arange(32), context))


def fine_tune(module: BackboneModule, data: Made, steps: int = 60) -> dict[str, float]:
    """The metrics after some steps."""
    every = 1 if module.backbone.on_sphere else None
    trainer = Trainer(max_steps=steps, limit_val_batches=0, callbacks=[NormalizeWeights(every)], **QUIET)
    trainer.fit(module, datamodule=data)
    if module.backbone.on_sphere:
        assert weight_error(module.backbone) < 1e-6
    Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    assert all(f"{{split}}/{name.removeprefix('val/')}" in TASK_METRICS for name in module.evaluated)
    return module.evaluated


@pytest.fixture(params=[NGPT, Nemotron])
def backbone(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    torch.manual_seed(0)
    return request.param(DIMS)


FAST = AdamW(lr=2e-2), Cosine()


def test_sequences_of_one_class_each_are_learned(backbone: Decoder) -> None:
    data = sequences(lambda first: first)
    data.num_labels, data.problem = 2, "single_label_classification"
    metrics = fine_tune(SequenceClassification(backbone, *FAST, num_labels=2, pad_token_id=PAD), data)
    assert metrics["val/loss"] < 0.2
    assert metrics["val/accuracy"] == metrics["val/f1"] == metrics["val/mcc"] == 1


def test_sequences_of_several_classes_are_learned(backbone: Decoder) -> None:
    data = sequences(lambda first: torch.stack((first, 1 - first, torch.zeros_like(first)), dim=1).float())
    module = SequenceClassification(backbone, *FAST, num_labels=3, pad_token_id=PAD, problem=MultiLabel)
    metrics = fine_tune(module, data)
    assert metrics["val/accuracy"] == metrics["val/exact_match"] == metrics["val/mcc"] == 1


@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 2)])
def test_numbers_are_learned(backbone: Decoder, shape: tuple[int, ...]) -> None:
    data = sequences(
        lambda first: (2.0 * first - 1)[:, None].expand(64, 2)[:, : shape[-1] if len(shape) > 1 else 1].reshape(shape)
    )
    n = shape[1] if len(shape) > 1 else 1
    metrics = fine_tune(SequenceClassification(backbone, *FAST, num_labels=n, pad_token_id=PAD, problem=Regression), data)
    assert metrics["val/mse"] == pytest.approx(metrics["val/loss"], rel=1e-4)
    assert metrics["val/mse"] < 0.1
    assert metrics["val/pearson"] > 0.95
    assert metrics["val/spearman"] > 0.8


def test_tokens_are_learned_and_their_entities_found(backbone: Decoder) -> None:
    metrics = fine_tune(TokenClassification(backbone, *FAST, num_labels=len(TAGS)), tagged())
    assert metrics["val/accuracy"] > 0.95
    assert metrics["val/span_f1"] > 0.9


def test_answers_are_learned_and_taken_from_the_best_window(backbone: Decoder) -> None:
    metrics = fine_tune(QuestionAnswering(backbone, *FAST), answered(), steps=120)
    assert metrics["val/exact_match"] > 0.8
    assert metrics["val/f1"] >= metrics["val/exact_match"]


def test_the_language_model_s_head_is_gone_and_all_that_is_left_learns(backbone: Decoder) -> None:
    module = TokenClassification(backbone, *FAST, num_labels=len(TAGS))
    assert not [name for name in module.state_dict() if "lm_head" in name]
    whole = flops_per_token(type(backbone)(DIMS), seq_len=10)
    assert flops_per_token(backbone, seq_len=10) == whole - 6 * DIMS.vocab_size * DIMS.d_model
    module.loss(tagged().batch).backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_padding_changes_nothing_on_either_side(backbone: Decoder) -> None:
    module = SequenceClassification(backbone, *FAST, num_labels=2, pad_token_id=PAD).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    alone = module.scores(TextBatch(tokens, torch.ones_like(tokens), tokens[:, 0]))
    for left in (0, 3):
        padded = torch.nn.functional.pad(tokens, (left, 3 - left), value=PAD)
        batch = TextBatch(padded, (padded != PAD).long(), tokens[:, 0])
        torch.testing.assert_close(module.scores(batch), alone)


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ({"num_labels": 3}, "num_labels is 2, but that of the data is 3: set model.init_args.num_labels to 3"),
        ({"pad_token_id": 5}, "pad_token_id is 31, but that of the data is 5: set model.init_args.pad_token_id to 5"),
        ({"problem": "regression"}, "the data's problem is regression, and the model's is SingleLabel"),
        ({"vocab_size": 40}, "dims.vocab_size is 32, but the data has 40 token ids"),
    ],
)
def test_data_that_says_otherwise_than_the_model_is_refused(told: dict[str, Any], refused: str) -> None:
    data = sequences(lambda first: first)
    for name, value in told.items():
        setattr(data, name, value)
    module = SequenceClassification(Nemotron(DIMS), *FAST, num_labels=2, pad_token_id=PAD)
    with pytest.raises(InputError, match=refused):
        Trainer(max_steps=1, **QUIET).fit(module, datamodule=data)


def test_a_label_that_the_model_has_not_is_refused() -> None:
    module = SequenceClassification(Nemotron(DIMS), *FAST, num_labels=2, pad_token_id=PAD)
    with pytest.raises(InputError, match="there is a label 6, and the model has 2 labels"):
        Trainer(max_steps=1, **QUIET).fit(module, datamodule=sequences(lambda first: 6 * first))


def test_predictions_of_no_spread_have_a_correlation_of_zero() -> None:
    module = SequenceClassification(Nemotron(DIMS), *FAST, num_labels=1, pad_token_id=PAD, problem=Regression)
    torch.nn.init.zeros_(module.head.score.weight)
    Trainer(**QUIET).validate(module, datamodule=sequences(lambda first: first.float()), verbose=False)
    assert module.evaluated["val/pearson"] == module.evaluated["val/spearman"] == 0


def test_a_label_whose_correlation_is_not_defined_counts_for_zero_and_the_others_for_what_they_are() -> None:
    evaluation = Evaluation(Regression(2).metrics())
    labels = torch.randn(9, 2)
    evaluation.compare(torch.stack((labels[:, 0], torch.zeros(9)), dim=1), labels)
    evaluation.update(torch.tensor(1.0), 9)
    named = evaluation.compute()
    assert float(named["pearson"]) == pytest.approx(0.5)
    assert float(named["spearman"]) == pytest.approx(0.5)


@pytest.mark.parametrize(("problem", "count"), [(SingleLabel, 2), (SingleLabel, 3), (MultiLabel, 2)])
def test_predictions_that_are_all_of_one_class_correlate_with_nothing(problem: Any, count: int) -> None:
    labels = torch.arange(100) == 7
    labels = torch.stack([labels] * count, dim=1) if problem is MultiLabel else labels
    metric = problem(count).metrics()["mcc"]
    metric.update(torch.zeros_like(labels).long(), labels.long())
    assert metric.compute() == 0


NUMBERS = {SingleLabel: lambda n: torch.arange(n) % 3, MultiLabel: lambda n: (torch.arange(3 * n).view(n, 3) % 2).float()}


def of_three(problem: Any, backbone: Decoder) -> SequenceClassification:
    """A classifier whose scores are far apart."""
    module = SequenceClassification(backbone, *FAST, num_labels=3, pad_token_id=PAD, problem=problem)
    torch.nn.init.normal_(module.head.score.weight)
    return module


def batches_of(problem: Any, *counts: int) -> list[TextBatch]:
    """Batches of so many sequences, with labels of three numbers or one of three classes."""
    labels = NUMBERS.get(problem, lambda n: torch.randn(n, 3))
    return [TextBatch(*rows(count), labels(count)) for count in counts]


@pytest.mark.parametrize("problem", [SingleLabel, MultiLabel, Regression, TokenClassification, QuestionAnswering])
def test_a_model_whose_weights_are_no_numbers_scores_none(problem: Any) -> None:
    backbone = Nemotron(DIMS)
    if problem is TokenClassification:
        module, data = problem(backbone, *FAST, num_labels=len(TAGS)), tagged()
    elif problem is QuestionAnswering:
        module, data = problem(backbone, *FAST), answered()
    else:
        module, data = of_three(problem, backbone), Made(*batches_of(problem, 8))
    torch.nn.init.constant_(next(module.head.parameters()), math.nan)
    Trainer(**QUIET).validate(module, datamodule=data, verbose=False)
    assert {name for name, value in module.evaluated.items() if not math.isnan(value)} == set()
    assert len(module.evaluated) > 2


def by_hand(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """What class scores (N, n) come to, by the formulas."""
    predicted, classes = scores.argmax(dim=1).tolist(), range(scores.shape[1])
    pairs = list(zip(predicted, labels.tolist(), strict=True))
    right = [sum(pair == (k, k) for pair in pairs) for k in classes]
    found, there = ([sum(pair[side] == k for pair in pairs) for k in classes] for side in (0, 1))
    count, product = len(pairs), sum(f * t for f, t in zip(found, there, strict=True))
    spread = [count**2 - sum(n**2 for n in of) for of in (found, there)]
    return {
        "val/loss": float((scores.logsumexp(dim=1) - scores[range(count), labels]).mean()),
        "val/accuracy": sum(right) / count,
        "val/f1": sum(2 * r / (f + t) for r, f, t in zip(right, found, there, strict=True)) / len(classes),
        "val/mcc": (count * sum(right) - product) / math.sqrt(math.prod(spread)),
    }


def test_every_label_of_unequal_batches_weighs_alike(backbone: Decoder) -> None:
    batches = batches_of(SingleLabel, 40, 7)
    module = of_three(SingleLabel, backbone).eval()
    Trainer(**QUIET).validate(module, datamodule=Made(batches[0], held_out=batches), verbose=False)
    scores = torch.cat([module.scores(batch).detach() for batch in batches])
    assert module.evaluated == pytest.approx(by_hand(scores, torch.cat([batch.labels for batch in batches])), rel=1e-5)


def test_every_labelled_token_of_unequal_batches_weighs_alike(backbone: Decoder) -> None:
    whole = tagged().batch
    few = TextBatch(*(part[:3] for part in whole))
    few = few._replace(labels=few.labels.masked_fill(torch.arange(10) > 2, -100))
    module = TokenClassification(backbone, *FAST, num_labels=len(TAGS)).eval()
    torch.nn.init.normal_(module.head.score.weight)
    Trainer(**QUIET).validate(module, datamodule=Made(whole, held_out=[whole, few]), verbose=False)
    labels = torch.cat([whole.labels, few.labels])
    scores = torch.cat([module.scores(batch).detach() for batch in (whole, few)])[labels != -100]
    assert module.evaluated == pytest.approx(by_hand(scores, labels[labels != -100]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12 and later
def test_two_processes_measure_together_what_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    problems = (SingleLabel, MultiLabel, Regression)
    cases = [(of_three(problem, Nemotron(DIMS)).eval(), batches_of(problem, 9, 4)) for problem in problems]

    @torch.no_grad()
    def measured(mine: slice) -> list[dict[str, float]]:
        for module, batches in cases:
            for batch in batches[mine]:
                module.evaluate(batch, "val")
        return [{name: float(value) for name, value in module.measured("val").items()} for module, _ in cases]

    def share(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", world_size=2, rank=rank)
        (tmp_path / f"{rank}.json").write_text(json.dumps(measured(slice(rank, rank + 1))))

    # As torch's own loaders do it: a forked process has everything there already.
    processes = [multiprocessing.get_context("fork").Process(target=share, args=(rank,), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    expected = measured(slice(None))
    for rank in range(2):
        ours = json.loads((tmp_path / f"{rank}.json").read_text())
        assert [pytest.approx(one, rel=1e-5) for one in expected] == ours


TAGGED = st.lists(st.sampled_from(TAGS), max_size=12)


@given(TAGGED)
def test_an_entity_is_a_longest_run_of_one_type_that_no_b_breaks(tags: list[str]) -> None:
    starts = [
        at
        for at, tag in enumerate(tags)
        if tag != "O" and (tag[0] == "B" or at == 0 or tags[at - 1] == "O" or tags[at - 1][2:] != tag[2:])
    ]
    expected = set()
    for first in starts:
        inside = (at for at in range(first + 1, len(tags) + 1) if at == len(tags) or at in starts or tags[at] == "O")
        expected.add((first, next(inside) - 1, tags[first][2:]))
    assert spans(tags) == expected


@given(st.lists(st.tuples(TAGGED, st.lists(st.sampled_from([*TAGS, None]), max_size=12)), min_size=1, max_size=4))
def test_entities_are_counted_over_all_rows_and_tokens_without_a_tag_are_left_out(pairs: list[tuple[list[str], Any]]) -> None:
    metric, found, there, right = SpanF1(TAGS), 0, 0, 0
    for tags, truth in pairs:
        length = min(len(tags), len(truth))
        numbers = torch.tensor([[TAGS.index(tag) for tag in tags[:length]]], dtype=torch.int64)
        labels = torch.tensor([[-100 if tag is None else TAGS.index(tag) for tag in truth[:length]]], dtype=torch.int64)
        metric.update(numbers, labels)
        kept = [(tag, true) for tag, true in zip(tags, truth, strict=False) if true is not None]
        ours, theirs = spans([tag for tag, _ in kept]), spans([true for _, true in kept])
        found, there, right = found + len(ours), there + len(theirs), right + len(ours & theirs)
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values["span_precision"] == pytest.approx(right / found if found else 0)
    assert values["span_recall"] == pytest.approx(right / there if there else 0)
    assert values["span_f1"] == pytest.approx(2 * right / (found + there) if found + there else 0)


def test_tags_of_entities_are_told_from_other_labels() -> None:
    assert are_spans(TAGS)
    assert not are_spans(["NOUN", "VERB", "O"])


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10**6))
def test_the_best_span_is_the_best_of_all(length: int, longest: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    starts, ends = torch.randn(2, 1, length, generator=draw)
    context = torch.rand(1, length, generator=draw) < 0.7
    possible = [
        (float(starts[0, i] + ends[0, j]), i, j)
        for i in range(length)
        for j in range(i, min(length, i + longest))
        if context[0, i] and context[0, j]
    ]
    score, first, last = (part.item() for part in best_spans(starts, ends, context, longest))
    if possible:
        assert (score, first, last) == (pytest.approx(max(possible)[0]), *max(possible)[1:])
    else:
        assert score == -float("inf")
