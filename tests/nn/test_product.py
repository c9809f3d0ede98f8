"""Products by oneDNN against torch's own, also on CPUs for which it would not be called."""

import pytest
import torch
from torch.nn import functional as F

from ngpt_lab.nn import product as module
from ngpt_lab.nn.chunked_loss import chunked_cross_entropy
from ngpt_lab.nn.product import OPERATOR, product, times


@pytest.fixture(autouse=True)
def onednn(monkeypatch):
    monkeypatch.setattr(module, "MKL_IS_SLOW", True)
    monkeypatch.setattr(module, "WORTH_A_CALL", 1)


def with_gradients(call, x, weight, bias):
    y = call(x, weight, bias)
    return y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5), (1, 1, 5)])
def test_it_is_torchs_linear_with_its_gradients(shape):
    torch.manual_seed(0)
    factors = [torch.randn(size, requires_grad=True) for size in (shape, (4, 5), (4,))]
    torch.testing.assert_close(with_gradients(product, *factors), with_gradients(F.linear, *factors))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_factor_that_is_not_trained_has_no_gradient(frozen):
    factors = [torch.randn(size, requires_grad=i != frozen) for i, size in enumerate([(7, 5), (4, 5)])]
    trained = factors[1 - frozen]
    found, expected = (
        torch.autograd.grad(call(*factors).square().sum(), trained, retain_graph=True) for call in (product, F.linear)
    )
    torch.testing.assert_close(found, expected)


def test_compiled_once_for_any_number_of_tokens_it_stays_compiled():
    weight = torch.randn(4, 5, requires_grad=True)
    torch.compiler.reset()
    compiled = torch.compile(product, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=2):  # one graph for the first number, one for all others
        for tokens in (3, 7, 8, 21):
            x = torch.randn(tokens, 5)
            torch.testing.assert_close(*(torch.autograd.grad(f(x, weight).sum(), weight) for f in (compiled, F.linear)))


def test_factors_may_be_transposed_views():
    torch.manual_seed(1)
    a, b = torch.randn(6, 9), torch.randn(6, 4)
    torch.testing.assert_close(times(a.T, b.T), a.T @ b)


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, True), (torch.float64, False), (torch.bfloat16, False)], ids=str
)
def test_no_dtype_but_float32_comes_to_it(dtype, autocast):
    x, weight = torch.randn(6, 9, dtype=dtype), torch.randn(4, 9, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert not module.by_onednn(x, weight)
        assert torch.equal(product(x, weight), F.linear(x, weight))


def test_small_products_are_left_to_mkl(monkeypatch):
    monkeypatch.setattr(module, "WORTH_A_CALL", 6 * 9 * 4 + 1)
    assert not module.by_onednn(torch.randn(6, 9), torch.randn(4, 9))
    assert module.by_onednn(torch.randn(7, 9), torch.randn(4, 9))


def test_the_operator_is_one_that_torch_can_compile_and_differentiate():
    x, weight = torch.randn(6, 9, requires_grad=True), torch.randn(4, 9, requires_grad=True)
    torch.library.opcheck(OPERATOR, (x, weight))


@pytest.mark.parametrize("ids", [3, 2600])
def test_the_chunked_loss_is_that_of_whole_logits(ids):
    torch.manual_seed(2)
    x, matrix = torch.randn(2, 170, 8, requires_grad=True), torch.randn(ids, 8, requires_grad=True)
    targets = torch.randint(ids, (2, 170))

    def whole(features, weight, targets):
        return F.cross_entropy((features @ weight.T).flatten(0, 1), targets.flatten())

    chunked, expected = (loss(x, matrix, targets) for loss in (chunked_cross_entropy, whole))
    torch.testing.assert_close(chunked, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, (x, matrix)) for loss in (chunked, expected)))
