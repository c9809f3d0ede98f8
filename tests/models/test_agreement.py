"""The compiler changes no number by more than rounding: the first step, fifty steps, and a deep model in bfloat16."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from ngpt_lab.models import NGPT, Decoder, Dims, Nemotron
from ngpt_lab.nn.linear import project
from ngpt_lab.nn.next_token import LARGE
from ngpt_lab.training import AdamW

SMALL = Dims(256, 64, 2, 4, 2, 16, 128)
CHUNKED = Dims(LARGE, 64, 1, 4, 2, 16, 128)
DEEP = Dims(256, 48, 24, 4, 4, 12, 96)
TOLERANCE = {"32-true": 1e-5, "bf16-mixed": 1e-2}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def made(model: type[Decoder], dims: Dims, compiled: bool) -> Decoder:
    torch.manual_seed(0)
    decoder = model(dims)
    if compiled:
        decoder.compile(fullgraph=True)
    return decoder


def first_step(decoder: Decoder, precision: str) -> dict[str, Tensor]:
    """The loss and every gradient."""
    ids = torch.randint(decoder.dims.vocab_size, (2, 65), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext():
        loss = decoder(ids[:, :-1], ids[:, 1:])
    loss.backward()
    return {"loss": loss.detach().double(), **{name: p.grad.double() for name, p in decoder.named_parameters()}}


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def agree(model: type[Decoder], dims: Dims, precision: str) -> None:
    eager, compiled = (first_step(made(model, dims, compiled), precision) for compiled in (False, True))
    told = {name: off(compiled[name], eager[name]) for name in eager}
    assert max(told.values()) <= TOLERANCE[precision], max(told, key=told.get)


@pytest.mark.parametrize("model", [NGPT, pytest.param(Nemotron, marks=pytest.mark.slow)])
def test_compiled_and_eager_agree_on_the_first_step_with_a_chunked_loss(model):
    agree(model, CHUNKED, "32-true")


@pytest.mark.slow
@pytest.mark.parametrize("model", [NGPT, Nemotron])
@pytest.mark.parametrize(("dims", "precision"), [(SMALL, "32-true"), (SMALL, "bf16-mixed"), (CHUNKED, "bf16-mixed")])
def test_compiled_and_eager_agree_on_the_first_step(model, dims, precision):
    agree(model, dims, precision)


def fifty_steps(model: type[Decoder], compiled: bool = False, threads: int = 1, reverse: bool = False) -> Tensor:
    """The losses; `reverse` turns the rows of each batch around, which changes nothing but the order of sums."""
    decoder, losses = made(model, SMALL, compiled), []
    optimizer, draw = AdamW(lr=3e-3).build(decoder), torch.Generator().manual_seed(3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(50):
            ids = torch.randint(64, (8, 65), generator=draw).cumsum(dim=1) % 64
            ids = ids.flip(0) if reverse else ids
            optimizer.zero_grad()
            losses.append(decoder(ids[:, :-1], ids[:, 1:]))
            losses[-1].backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 0.1)
            optimizer.step()
            if decoder.on_sphere:
                project(decoder)
    finally:
        torch.set_num_threads(before)
    return torch.stack(losses).detach().double()


@pytest.mark.slow
@pytest.mark.parametrize("model", [NGPT, Nemotron])
def test_over_fifty_steps_the_compiler_changes_no_more_than_the_order_of_sums_does(model):
    """Wanted is the spread of 1 and 2 threads alone; no size was found at which that tells anything of nGPT.

    On torch 2.13 one step of nGPT has the same loss, gradients and clipped norm to the last bit at 1 and 2 threads, for widths
    of 96, 256 and 512, vocabularies of 256 and 2048, and 512 to 4096 tokens: torch splits none of its sums over threads. Of
    Nemotron the gradients of the layer norms alone differ. Over fifty steps at a width of 256, two layers and 4 x 128 tokens,
    nGPT's losses differ by 0 and Nemotron's by one float32 digit, and compiled ones by two and three digits. At 4 x 512 tokens
    it is 0 against 9.5e-7 for nGPT, and 1.3e-5 against 9.3e-5 for Nemotron: there the claim, read so, does not hold. Threads
    reorder few of the sums, a compiler all of them. So the spread is the largest of 2 threads, reversed batches and one digit.
    """
    eager = fifty_steps(model)
    itself = [fifty_steps(model, threads=2), fifty_steps(model, reverse=True)]
    # Sums may come out alike to the last digit whatever their order; a loss cannot be told more closely than that digit.
    digit = float(eager.max()) * torch.finfo(torch.float32).eps
    spread = max(digit, *(float((eager - other).abs().max()) for other in itself))
    assert eager[-1] < eager[0] - 0.5
    assert float((eager - fifty_steps(model, compiled=True)).abs().max()) <= 3 * spread


@pytest.mark.slow
@pytest.mark.parametrize("model", [NGPT, Nemotron])
def test_in_bfloat16_a_deep_compiled_model_is_no_further_from_float32_than_an_eager_one(model):
    exact = first_step(made(model, DEEP, compiled=False), "32-true")
    found = [first_step(made(model, DEEP, compiled), "bf16-mixed") for compiled in (False, True)]
    whole = [off(*(torch.cat([g.flatten() for n, g in told.items() if n != "loss"]) for told in (one, exact))) for one in found]
    eager, compiled = whole
    assert compiled <= 1.2 * eager
    assert eager <= 0.1
    assert abs(found[1]["loss"] - exact["loss"]) <= 1e-3 * exact["loss"]
