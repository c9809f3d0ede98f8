"""The heads against their definitions, written out plainly."""

import pytest
import torch
from torch.nn import functional as F

from ngpt_lab.errors import InputError
from ngpt_lab.hf import (
    NGPTForCausalLM,
    NGPTForQuestionAnswering,
    NGPTForSequenceClassification,
    NGPTForTokenClassification,
)

PAD = 0


@pytest.fixture
def padded(tokens):
    """One whole row, one padded on the right, one on the left, and their mask."""
    rows = torch.stack((tokens[0], tokens[1], tokens[1].flip(0)))
    mask = torch.ones_like(rows)
    mask[1, 5:] = mask[2, :3] = 0
    return rows * mask, mask


def stream(model, rows, mask):
    return model.model(rows, attention_mask=mask).last_hidden_state


def check(out, loss, model):
    """The loss, and that it moves the head and the body."""
    assert torch.isclose(out.loss.double(), loss, rtol=1e-6)
    out.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_a_sequence_is_read_at_its_last_token_that_is_no_padding(small_model, padded, kind):
    rows, mask = padded
    model = small_model(NGPTForSequenceClassification, num_labels=1 if kind == "regression" else 3)
    assert model.score.bias is None
    scores = stream(model, rows, mask)[[0, 1, 2], [6, 4, 6]] @ model.score.weight.T
    labels, loss = {
        "single": (torch.tensor([2, 0, 1]), lambda y: -scores.log_softmax(-1)[[0, 1, 2], y].mean()),
        "multi": (
            torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]).double(),
            lambda y: -(y * F.logsigmoid(scores) + (1 - y) * F.logsigmoid(-scores)).mean(),
        ),
        "regression": (torch.tensor([0.5, -1.0, 2.0]).double(), lambda y: (scores[:, 0] - y).square().mean()),
    }[kind]
    out = model(rows, attention_mask=mask, labels=labels)
    assert torch.allclose(out.logits, scores, atol=1e-12)
    check(out, loss(labels), model)


def test_every_token_has_its_answer(small_model, padded):
    rows, mask = padded
    model = small_model(NGPTForTokenClassification, num_labels=4)
    scores = stream(model, rows, mask) @ model.score.weight.T + model.score.bias
    labels = torch.where(mask.bool(), rows % 4, -100)
    out = model(rows, attention_mask=mask, labels=labels)
    assert torch.allclose(out.logits, scores, atol=1e-12)
    kept = mask.bool()
    check(out, -scores.log_softmax(-1)[kept].gather(-1, labels[kept][:, None]).mean(), model)
    model.train()
    assert not torch.equal(model(rows, attention_mask=mask).logits, out.logits)  # dropout in front of the head


def test_an_answer_is_a_start_and_an_end_among_all_positions(small_model, padded):
    rows, mask = padded
    model = small_model(NGPTForQuestionAnswering)
    with torch.no_grad():
        model.qa_outputs.bias += 0.1
    start, end = (stream(model, rows, mask) @ model.qa_outputs.weight.T + model.qa_outputs.bias).unbind(-1)
    starts, ends = torch.tensor([1, 3, 9]), torch.tensor([2, 3, 4])  # the third starts outside, and is left out
    out = model(rows, attention_mask=mask, start_positions=starts, end_positions=ends)
    assert torch.allclose(out.start_logits, start, atol=1e-12)
    assert torch.allclose(out.end_logits, end, atol=1e-12)
    first = -start.log_softmax(-1)[[0, 1], [1, 3]].mean()
    last = -end.log_softmax(-1)[[0, 1, 2], [2, 3, 4]].mean()
    model.qa_outputs.bias.requires_grad_(False)  # no softmax moves with it
    assert torch.isclose(out.loss, (first + last) / 2)
    out.loss.backward()
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("cls", [NGPTForSequenceClassification, NGPTForTokenClassification])
def test_a_label_out_of_range_is_refused_by_name(small_model, tokens, cls):
    model = small_model(cls, num_labels=3)
    labels = torch.full((2,) if cls is NGPTForSequenceClassification else (2, 7), -100)
    for wrong in (3, -1):
        labels[-1] = wrong
        with pytest.raises(InputError, match=rf"labels: {wrong} is none of the 3 that .* tells apart: use 0 to 2, or -100"):
            model(tokens, labels=labels)


@pytest.mark.parametrize("cls", [NGPTForCausalLM, NGPTForSequenceClassification, NGPTForTokenClassification])
def test_a_model_with_labels_compiles_into_one_graph(small_model, tokens, cls):
    model = small_model(cls, num_labels=3, num_hidden_layers=1)
    labels = tokens % 3 if cls is not NGPTForSequenceClassification else tokens[:, 0] % 3
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(tokens, labels=labels).loss, model(tokens, labels=labels).loss)


def test_a_batch_without_a_padding_token_is_refused(small_model, tokens):
    model = small_model(NGPTForSequenceClassification, pad_token_id=None)
    with pytest.raises(ValueError, match="no padding token is defined"):
        model(tokens)
    assert model(tokens[:1]).logits.shape == (1, 2)


@pytest.mark.parametrize("cls", [NGPTForSequenceClassification, NGPTForTokenClassification, NGPTForQuestionAnswering])
def test_heads_show_hidden_states_and_attentions_and_take_embedded_tokens(small_model, tokens, cls):
    model = small_model(cls, attn_implementation="eager")
    out = model(tokens, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 3
    assert len(out.attentions) == 2
    embedded = model(inputs_embeds=model.get_input_embeddings()(tokens))
    assert torch.equal(embedded[0], out[0])
    model.set_input_embeddings(torch.nn.Embedding(41, 16, dtype=torch.float64))
    assert not torch.equal(model(tokens)[0], out[0])
