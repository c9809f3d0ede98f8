"""The chunked loss is the loss of whole logits, in a fraction of their memory."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ngpt_lab.bench.profiling import peak_growth
from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.models.ngpt import ScaledLogits
from ngpt_lab.nn import chunked_loss, next_token
from ngpt_lab.nn.chunked_loss import chunked_cross_entropy, chunked_scores
from ngpt_lab.nn.plain import PlainLogits


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens in several chunks, of which the last is smaller, each gone over in several parts."""
    monkeypatch.setattr(chunked_loss, "FEWEST", 5)
    monkeypatch.setitem(chunked_loss.AT_A_TIME, "cpu", 100)


def made(dtype: torch.dtype = torch.float64, tokens: int = 33, vocab: int = 47) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, tokens // 3, 16, dtype=dtype, requires_grad=True)
    matrix = torch.randn(vocab, 16, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocab, (3, tokens // 3))
    targets[1, 2:9] = -100
    return x, matrix, targets


def whole(x: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    return next_token.cross_entropy(F.linear(x, matrix), targets)


def gradients(loss, x, matrix, targets, factor=1.0):
    leaves = [t.detach().requires_grad_() for t in (x, matrix)]
    value = loss(*leaves, targets)
    (value * factor).backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_loss_and_gradients_are_those_of_whole_logits(factor):
    ours, theirs = (gradients(loss, *made(), factor) for loss in (chunked_cross_entropy, whole))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_error_is_that_of_whole_logits_and_the_loss_is_float32(dtype):
    x, matrix, targets = made(torch.float32, 99, 301)
    exact = gradients(whole, x.double(), matrix.double(), targets)
    told = {}
    for loss in (chunked_cross_entropy, whole):
        with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
            found = gradients(loss, x, matrix, targets)
        assert {t.dtype for t in found} == {torch.float32}
        told[loss] = [float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)]
    assert all(ours <= 1.5 * theirs + 1e-7 for ours, theirs in zip(told[chunked_cross_entropy], told[whole], strict=True))


@pytest.mark.usefixtures("many_chunks")
def test_weights_stored_in_bfloat16_get_gradients_in_bfloat16_and_a_loss_in_float32():
    x, matrix, targets = made(torch.float32)
    loss, by_x, by_matrix = gradients(chunked_cross_entropy, x, matrix.bfloat16(), targets)
    assert (loss.dtype, by_x.dtype, by_matrix.dtype) == (torch.float32, torch.float32, torch.bfloat16)


@pytest.mark.usefixtures("many_chunks")
def test_without_gradients_the_loss_is_the_same_and_each_token_s_is_at_hand():
    x, matrix, targets = made()
    logits = F.linear(x, matrix)
    kept = targets != -100
    with torch.no_grad():
        torch.testing.assert_close(chunked_cross_entropy(x, matrix, targets), whole(x, matrix, targets))
    losses, right = chunked_scores(x, matrix, targets)
    torch.testing.assert_close(losses[kept], F.cross_entropy(logits[kept], targets[kept], reduction="none"))
    assert torch.equal(right, (logits.argmax(dim=-1) == targets) & kept)
    assert not losses[~kept].any()


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize(("model", "head"), [(NGPT, ScaledLogits), (Nemotron, PlainLogits)])
@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_s_gradients_flow_through_the_chunks_to_matrix_scale_and_a_tied_embedding(monkeypatch, model, head, tied):
    dims = Dims(53, 24, 1, 4, 2, 8, 40)
    torch.manual_seed(0)
    decoder = model(dims, lm_head=lambda dims, embedding: head(dims, embedding, tied=tied)).double()
    ids = torch.randint(53, (2, 21))
    found = []
    for large in (2048, 0):
        monkeypatch.setattr(next_token, "LARGE", large)
        decoder.zero_grad()
        loss = decoder(ids[:, :-1], ids[:, 1:])
        loss.backward()
        scores = decoder(ids[:, :-1], ids[:, 1:], measure=next_token.token_scores)
        found.append([loss, *scores, *(p.grad.clone() for p in decoder.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_in_float16_the_gradients_survive_until_they_are_scaled():
    decoder = Nemotron(Dims(16384, 16, 1, 2, 1, 8, 16))
    ids = torch.randint(16384, (4, 1025), generator=torch.Generator().manual_seed(0))

    def gradient():
        decoder.zero_grad()
        (decoder(ids[:, :-1], ids[:, 1:]) * 2**16).backward()
        return decoder.lm_head.matrix.weight.grad.clone()

    exact = gradient()
    with torch.autocast("cpu", torch.float16):
        found = gradient()
    assert float((found - exact).norm() / exact.norm()) <= 0.01


@pytest.mark.usefixtures("many_chunks")
def test_it_compiles_into_one_graph_with_the_same_gradients():
    compiled = torch.compile(chunked_cross_entropy, fullgraph=True)
    ours, theirs = (gradients(loss, *made()) for loss in (compiled, chunked_cross_entropy))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("many_chunks")
def test_where_no_token_counts_the_loss_is_nan_and_the_gradients_are_zero_as_with_whole_logits():
    x, matrix, targets = made()
    for loss in (chunked_cross_entropy, whole):
        value, *by = gradients(loss, x, matrix, torch.full_like(targets, -100))
        assert value.isnan()
        assert not any(gradient.any() for gradient in by)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_a_vocabulary_of_32000_it_needs_less_than_a_quarter_of_the_logits_memory(monkeypatch, dtype):
    monkeypatch.delitem(chunked_loss.AT_A_TIME, "cpu")  # with the steps of a GPU, which are larger
    tokens, width, vocab = 2048, 512, 32000
    torch.manual_seed(0)
    x, matrix = (torch.randn(n, width, requires_grad=True) for n in (tokens, vocab))
    targets, logits, results = torch.randint(vocab, (tokens,)), 4 * tokens * vocab, 4 * width * (tokens + vocab)
    saved = []

    def step(loss):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            value = loss(x[None], matrix, targets[None])
        value.backward()

    with torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext():
        peak = peak_growth(torch.device("cpu"), lambda: step(chunked_cross_entropy))
        peak_of_scores = peak_growth(torch.device("cpu"), lambda: chunked_scores(x[None], matrix, targets[None]))
    assert sum(saved) == results, "the two gradients are all that is kept for the backward pass"
    assert peak - results < logits / 4, "beside the gradients, which any loss leaves behind"
    assert peak_of_scores < logits / 4


def test_what_it_cannot_do_is_told():
    x, matrix, targets = made()
    loss = chunked_cross_entropy(x, matrix, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        loss.backward()
