"""A cache that grows token by token gives what one forward pass over the whole gives, also for rows padded on the left."""

import pytest
import torch

from ngpt_lab.models.ablations.value_residual import ValueResidual
from ngpt_lab.nn.attention import GrowingCache
from ngpt_lab.nn.plain import OwnValue

LENGTHS = (11, 7, 1)


@pytest.fixture(params=[OwnValue, ValueResidual])
def model(request, architecture, dims):
    return architecture(dims, value=request.param, attention_bias=True).double().eval()


@pytest.fixture
def rows(dims):
    """Texts of several lengths."""
    return [torch.randint(dims.vocab_size, (1, length)) for length in LENGTHS]


def left_padded(rows):
    """Rows (1, T) as one batch, its mask, and each token's position in its own row."""
    width = max(row.shape[1] for row in rows)
    tokens = torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0)) for row in rows])
    mask = torch.tensor([[int(at >= width - row.shape[1]) for at in range(width)] for row in rows])
    return tokens, mask, (mask.cumsum(1) - 1).clamp_min(0)


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 4])
def test_token_by_token_equals_one_forward_pass(model, rows, first):
    tokens, cache = rows[0], GrowingCache()
    chunks = [tokens[:, :first], *tokens[:, first:].split(1, dim=1)]
    logits = torch.cat([model(chunk, cache=cache) for chunk in chunks], dim=1)
    torch.testing.assert_close(logits, model(tokens))
    assert cache.get_seq_length() == tokens.shape[1]


@torch.no_grad()
def test_a_chunk_after_a_cache_sees_the_cache_and_its_own_past(model, rows):
    tokens, cache = rows[0], GrowingCache()
    logits = torch.cat([model(chunk, cache=cache) for chunk in tokens.split(4, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(tokens))


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_rows_padded_on_the_left_equal_rows_alone(model, rows, cached):
    tokens, mask, positions = left_padded(rows)
    if cached:
        cache = GrowingCache()
        seen = [slice(0, 5), *(slice(at, at + 1) for at in range(5, tokens.shape[1]))]
        parts = [model(tokens[:, s], positions=positions[:, s], attention_mask=mask[:, : s.stop], cache=cache) for s in seen]
        logits = torch.cat(parts, dim=1)
    else:
        logits = model(tokens, positions=positions, attention_mask=mask)
    for row, padded in zip(rows, logits, strict=True):
        torch.testing.assert_close(padded[-row.shape[1] :], model(row)[0])


def test_a_row_of_padding_alone_has_a_finite_loss_and_gradient(model, rows):
    tokens, mask, positions = left_padded(rows)
    mask[1] = 0
    loss = model(tokens, tokens.masked_fill(mask == 0, -100), positions=positions, attention_mask=mask)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_positions_count_on_by_default(model, rows):
    tokens = torch.cat([rows[0], rows[0].flip(1)])
    counted = torch.arange(tokens.shape[1])
    assert torch.equal(model(tokens), model(tokens, positions=counted))
    assert torch.equal(model(tokens), model(tokens, positions=counted.expand(2, -1)))
    assert not torch.allclose(model(tokens), model(tokens, positions=2 * counted))


@torch.no_grad()
def test_only_distances_between_positions_count(model, rows):
    torch.testing.assert_close(model(rows[0]), model(rows[0], positions=100 + torch.arange(LENGTHS[0])), atol=1e-4, rtol=1e-4)
