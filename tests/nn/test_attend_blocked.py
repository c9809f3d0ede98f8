"""What holds of `blocked` alone; tests/nn/test_attend.py has what holds of every attention function."""

import pytest
import torch

from ngpt_lab.nn.attend_blocked import blocked
from ngpt_lab.nn.attend_formula import eager


def qkv(*shapes, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw, dtype=dtype, requires_grad=True) for shape in shapes]


def test_blocks_in_bfloat16_are_as_near_the_truth_as_the_whole_formula_and_keep_less_for_the_backward_pass():
    exact = qkv((2, 4, 512, 32), (2, 2, 512, 32), (2, 2, 512, 32), dtype=torch.float64)
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    truth, upstream = eager(*exact, None, 32**-0.5, 0.0), torch.randn(2, 4, 512, 32, dtype=torch.float64)
    true_gradients = torch.autograd.grad(truth, exact, upstream)
    kept, error, gradients = {}, {}, {}
    for attend in (eager, blocked):
        kept[attend] = 0

        def keep(x, attend=attend):
            kept[attend] += x.nbytes if x.shape[-1] > 32 else 0
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            y = attend(*half, None, 32**-0.5, 0.0)
        error[attend] = (y - truth).norm() / truth.norm()
        found = torch.autograd.grad(y, half, upstream.bfloat16())
        gradients[attend] = [(one - true).norm() / true.norm() for one, true in zip(found, true_gradients, strict=True)]
    assert error[blocked] < 1.05 * error[eager]
    assert all(one < 1.05 * other for one, other in zip(gradients[blocked], gradients[eager], strict=True))
    assert kept[blocked] < 0.66 * kept[eager]


def test_under_autocast_blocks_of_float32_have_gradients_and_an_empty_batch_has_an_answer():
    q, k, v = qkv((2, 4, 300, 16), (2, 2, 300, 16), (2, 2, 300, 16))
    gradients = {}
    for attend in (eager, blocked):
        with torch.autocast("cpu", torch.bfloat16):
            y = attend(q, k, v, None, 0.25, 0.0)
        assert y.dtype == torch.bfloat16
        gradients[attend] = torch.autograd.grad(y.float().sum(), (q, k, v))
    torch.testing.assert_close(gradients[blocked], gradients[eager], rtol=0.05, atol=0.05)
    assert blocked(q[:0], k[:0], v[:0], None, 0.25, 0.0).shape == (0, 4, 300, 16)


def test_what_a_compiler_is_told_of_the_operators_of_blocked_holds_for_transposed_keys():
    q, k = torch.randn(2, 2, 200, 8), torch.randn(1, 200, 2, 8).transpose(1, 2).flatten(0, 1)
    assert not k.is_contiguous()
    scores = [torch.randn(2, 2 * 128, 128), torch.randn(2, 2 * 72, 200)]
    averages = [torch.randn(2, 2 * 128, 8), torch.randn(2, 2 * 72, 8)]
    # Neither is differentiated: they are gradients.
    told = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.ngpt_lab.by_queries_and_keys.default, (scores, q, k, 0.5), test_utils=told)
    torch.library.opcheck(torch.ops.ngpt_lab.by_values.default, (scores, averages), test_utils=told)


@pytest.mark.parametrize(
    ("lengths", "gradients"),
    [
        pytest.param((3, 90, 255), True, id="1-gradients"),
        pytest.param((256, 300), False, id="2-none"),
        pytest.param((256, 300), True, id="2-gradients", marks=pytest.mark.slow),
        pytest.param((520, 777), False, id="4-none", marks=pytest.mark.slow),
        pytest.param((520, 777), True, id="4-gradients", marks=pytest.mark.slow),
        pytest.param((1030, 1100), False, id="8-none", marks=pytest.mark.slow),
    ],
)
def test_compiled_there_is_one_graph_for_a_number_of_blocks(lengths, gradients):
    torch.compiler.reset()
    compiled = torch.compile(blocked, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(recompile_limit=1):
        for length in lengths:
            arguments = qkv((2, 4, length, 8), (2, 2, length, 8), (2, 2, length, 8))
            with torch.set_grad_enabled(gradients):
                found, expected = (attend(*arguments, None, 0.25, 0.0) for attend in (compiled, eager))
            torch.testing.assert_close(found, expected)
            if gradients:
                of = (torch.autograd.grad(y.square().sum(), arguments) for y in (found, expected))
                torch.testing.assert_close(*of)
