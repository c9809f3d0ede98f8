"""Heads and their losses: what is read where, which labels count, and which are refused."""

import pytest
import torch
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.nn.heads import SequenceHead, SpanHead, TokenHead, class_loss, multi_label_loss, regression_loss, span_loss

WIDTH = 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_sequence_is_read_at_its_last_token_that_is_no_padding_whichever_side_that_is_on():
    head, x = SequenceHead(WIDTH, 3, pad_token_id=9), torch.randn(4, 5, WIDTH)
    tokens = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 9, 9, 9], [9, 9, 1, 2, 3], [1, 9, 2, 9, 9]])
    torch.testing.assert_close(head(x, tokens), head.score(x[range(4), [4, 1, 4, 2]]))


def test_several_sequences_without_a_padding_token_are_refused_and_one_is_read_at_its_end():
    head, x = SequenceHead(WIDTH, 3, pad_token_id=None), torch.randn(2, 5, WIDTH)
    tokens = torch.ones(2, 5, dtype=torch.int64)
    torch.testing.assert_close(head(x[:1], tokens[:1]), head.score(x[:1, -1]))
    with pytest.raises(InputError, match=r"a batch of 2 sequences needs a padding token .* set pad_token_id"):
        head(x, tokens)


def test_a_head_s_matrix_starts_at_the_standard_deviation_asked_for():
    heads = SequenceHead(500, 100, 0, std=0.3), TokenHead(500, 100, std=0.3), SpanHead(5000, std=0.3)
    for head in heads:
        weight, *bias = head.parameters()
        assert float(weight.detach().std()) == pytest.approx(0.3, rel=0.05)
        assert not any(b.any() for b in bias)


def test_a_head_in_half_precision_takes_the_stream_and_its_loss_is_in_single():
    x, labels = torch.randn(2, 3, WIDTH), torch.zeros(2, 3, dtype=torch.int64)
    logits = TokenHead(WIDTH, 4).bfloat16()(x)
    assert logits.dtype == torch.bfloat16
    assert class_loss(logits, labels).dtype == torch.float32


def test_only_training_drops_out():
    head, x = TokenHead(WIDTH, 4, dropout=0.5), torch.randn(2, 3, WIDTH)
    assert not torch.equal(head(x), head(x))
    assert torch.equal(head.eval()(x), head.score(x))


def test_classes_that_are_left_out_do_not_count_and_none_at_all_cost_nothing():
    logits, labels = torch.randn(2, 3, 4, requires_grad=True), torch.tensor([[0, -100, 3], [-100, -100, 1]])
    counted = logits[[0, 0, 1], [0, 2, 2]]
    torch.testing.assert_close(class_loss(logits, labels), F.cross_entropy(counted, torch.tensor([0, 3, 1])))
    nothing = class_loss(logits, torch.full_like(labels, -100))
    nothing.backward()
    assert nothing == 0
    assert not logits.grad.any()


def test_positions_beyond_the_end_do_not_count_and_negative_ones_are_the_first():
    starts, ends = torch.randn(2, 3, 5)
    places = torch.tensor([1, 7, -2]), torch.tensor([5, 2, 4])
    expected = (F.cross_entropy(starts[[0, 2]], torch.tensor([1, 0])) + F.cross_entropy(ends[1:], places[1][1:])) / 2
    torch.testing.assert_close(span_loss(starts, ends, *places), expected)


def test_numbers_may_come_without_their_last_dimension_and_are_never_broadcast():
    logits, labels = torch.randn(4, 1), torch.randn(4)
    torch.testing.assert_close(regression_loss(logits, labels), (logits[:, 0] - labels).square().mean())
    with pytest.raises(InputError, match=r"labels of shape \[4\] where \[4, 2\] belongs"):
        regression_loss(torch.randn(4, 2), labels)


@pytest.mark.parametrize(
    ("loss", "labels", "told"),
    [
        (class_loss, torch.tensor([0, 4]), "there is a label 4, and the model has 3 labels, 0 to 2"),
        (class_loss, torch.tensor([-1, 0]), "there is a label -1, and the model has 3 labels"),
        (class_loss, torch.tensor([0.0, 1.0]), "must be a whole number"),
        (class_loss, torch.zeros(2, 3), r"labels of shape \[2, 3\] where \[2\] belongs: give one class each"),
        (multi_label_loss, torch.tensor([[0, 1, 2], [0, 0, 0]]), "there is a label 2 for one of the model's 3 labels"),
        (multi_label_loss, torch.tensor([0, 1]), r"labels of shape \[2\] where \[2, 3\] belongs"),
    ],
)
def test_labels_that_do_not_fit_are_refused(loss, labels, told):
    with pytest.raises(InputError, match=told):
        loss(torch.randn(2, 3), labels)


@pytest.mark.parametrize("loss", [class_loss, multi_label_loss])
def test_labels_elsewhere_than_on_the_cpu_are_not_waited_for(loss):
    # Of a meta tensor there is nothing to wait for: whoever looks at a value is refused.
    labels = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    logits = torch.zeros(2, 3, 4, device="meta") if loss is class_loss else torch.zeros(2, 3, device="meta")
    assert loss(logits, labels).device.type == "meta"


@pytest.mark.parametrize("loss", [class_loss, multi_label_loss])
def test_a_loss_is_compiled_as_one_graph(loss):
    labels = torch.tensor([[0, 1, 1], [1, 0, 1]])
    logits = torch.randn(2, 3, 4) if loss is class_loss else torch.randn(2, 3)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))
