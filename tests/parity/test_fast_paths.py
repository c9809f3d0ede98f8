"""With every fast path on the references' numbers still come out: in float64 to 1e-10, in float32 to 1e-5."""

import pytest
import torch

from ngpt_lab.nn import chunked_loss, next_token


@pytest.fixture(autouse=True)
def _chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunked loss also at a small vocabulary, in several chunks."""
    monkeypatch.setattr(next_token, "LARGE", 0)
    monkeypatch.setattr(chunked_loss, "FEWEST", 4)
    monkeypatch.setitem(chunked_loss.AT_A_TIME, "cpu", 100)


def assert_as_the_reference(golden, decoder):
    loss = decoder(golden["input_ids"], golden.targets)
    loss.backward()
    golden.assert_close("loss", loss)
    theirs = golden.below("grad.")
    floor = 1e-3 * max(float(t.abs().max()) for t in theirs.values())
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            golden.assert_close(f"grad.{golden.names.theirs[name]}", parameter.grad, floor)


def test_in_chunks_the_loss_and_every_gradient_are_the_reference_s(golden):
    assert_as_the_reference(golden, golden.decoder())


@pytest.mark.slow
def test_compiled_and_in_chunks_the_loss_and_every_gradient_are_the_reference_s(golden):
    torch.compiler.reset()
    decoder = golden.decoder()
    decoder.compile(fullgraph=True)
    assert_as_the_reference(golden, decoder)
