"""Documents side by side in a window, each as if it stood alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.errors import InputError
from ngpt_lab.nn.attention import GrowingCache
from ngpt_lab.nn.masks import causal_mask, positions_within

LENGTHS = ((5, 1, 6), (12,), (1, 1, 3, 7))
ATTENTION = ("sdpa", "eager")
unwarned = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


@pytest.fixture
def rows(dims):
    """Tokens, targets without those across documents, and documents; (3, 12) each."""
    tokens = torch.randint(dims.vocab_size, (len(LENGTHS), 12))
    targets = torch.randint(dims.vocab_size, (len(LENGTHS), 12))
    documents = torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in LENGTHS])
    ends = torch.nn.functional.pad(documents[:, 1:] != documents[:, :-1], (0, 1))
    return tokens, targets.masked_fill(ends, -100), documents


def alone(model, tokens):
    """Logits (3, 12, V) of each document in a forward pass of its own."""
    return torch.stack(
        [torch.cat([model(part[None])[0] for part in row.split(lengths)]) for row, lengths in zip(tokens, LENGTHS, strict=True)]
    )


def gradients(model, loss):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("attention", ATTENTION)
def test_masked_documents_have_the_logits_and_gradients_of_separate_forward_passes(architecture, attention, dims, rows):
    tokens, targets, documents = rows
    model = architecture(dims, attention=attention)
    separate, together = alone(model, tokens), model(tokens, documents=documents)
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(separate.flatten(0, 1), targets.flatten())
    masked = model(tokens, targets, documents=documents)
    torch.testing.assert_close(masked, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(model, masked), gradients(model, loss), atol=1e-5, rtol=1e-5)


@unwarned
@torch.no_grad()
def test_flex_masks_documents_too(architecture, dims, rows):
    model = architecture(replace(dims, d_head=16), attention="flex")
    torch.testing.assert_close(model(rows[0], documents=rows[2]), alone(model, rows[0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTION)
def test_one_document_of_the_full_length_is_no_mask(architecture, attention, dims, rows):
    tokens, targets, documents = rows
    model = architecture(dims, attention=attention)
    one, plain = model(tokens, targets, documents=torch.full_like(documents, 3)), model(tokens, targets)
    torch.testing.assert_close(one, plain)
    torch.testing.assert_close(gradients(model, one), gradients(model, plain), atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_a_later_document_changes_nothing_in_one_before_it_and_the_other_way_round(architecture, dims, rows):
    tokens, _, documents = rows
    model = architecture(dims)
    changed = torch.where(documents == 1, (tokens + 1) % dims.vocab_size, tokens)
    same = (documents != 1)[..., None]
    before, after = model(tokens, documents=documents), model(changed, documents=documents)
    assert torch.equal(before.where(same, 0), after.where(same, 0))
    assert not torch.equal(before, after)


@torch.no_grad()
def test_positions_that_are_given_are_kept(architecture, dims, rows):
    tokens, _, documents = rows
    model, counted = architecture(dims), torch.arange(12)
    restarted = model(tokens, documents=documents, positions=positions_within(documents))
    assert torch.equal(restarted, model(tokens, documents=documents))
    assert not torch.equal(model(tokens, documents=documents, positions=2 * counted), restarted)
    # Only distances count, and attention sees those within a document alone.
    torch.testing.assert_close(model(tokens, documents=documents, positions=counted), restarted, atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_positions_restart_and_every_position_sees_itself(lengths):
    documents = torch.repeat_interleave(torch.tensor(lengths))[None]
    assert positions_within(documents)[0].tolist() == [at for length in lengths for at in range(length)]
    visible = torch.zeros_like(documents)
    mask = causal_mask(documents.shape[1], documents.shape[1], visible, documents.device, documents)
    assert torch.equal(mask[0, 0], torch.eye(documents.shape[1], dtype=torch.bool))
    blocks = torch.block_diag(*(torch.ones(length, length).tril() for length in lengths)).bool()
    assert torch.equal(causal_mask(*mask.shape[2:], None, documents.device, documents)[0, 0], blocks)


def test_documents_together_with_a_cache_are_refused(architecture, dims, rows):
    with pytest.raises(InputError, match="documents cannot be told apart together with a cache"):
        architecture(dims)(rows[0], cache=GrowingCache(), documents=rows[2])


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_masks_documents_like_the_eager_one(architecture, dims, rows, backend):
    tokens, targets, documents = rows
    model = architecture(dims)
    loss = model(tokens, targets, documents=documents)
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)(tokens, targets, documents=documents)
    torch.testing.assert_close(compiled, loss)
    torch.testing.assert_close(gradients(model, compiled), gradients(model, loss), atol=1e-5, rtol=1e-3)
