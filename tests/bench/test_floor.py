"""The floor of a step: its operations and bytes by hand, and the rates it is computed from."""

import pytest
import torch

from ngpt_lab.bench import floor as module
from ngpt_lab.bench.floor import NAMED, Hardware, floor, measured, named
from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Decoder, Dims, Nemotron

DIMS = Dims(vocab_size=10, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_head=4, d_ff=16)
UNIT = Hardware("one a second", {"32-true": 1.0, "bf16-mixed": 2.0, "bf16-true": 2.0}, 1.0)
TOKENS, LENGTH = 12, 6


@pytest.fixture(params=[NGPT, Nemotron])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    with torch.device("meta"):
        return request.param(DIMS)


@pytest.mark.parametrize(
    ("precision", "weight", "product", "copied"), [("32-true", 4, 4, 0), ("bf16-mixed", 4, 2, 2), ("bf16-true", 2, 2, 0)]
)
def test_the_floor_is_what_can_be_counted_by_hand(
    decoder: Decoder, precision: str, weight: int, product: int, copied: int
) -> None:
    least = floor(decoder, LENGTH, TOKENS, precision, UNIT)
    attention, mlp, head = 8 * 8 + 2 * 8 * 4 + 8 * 8, 2 * 8 * 16, 8 * 10
    per_token = 6 * (3 * (attention + mlp) + head) + 6 * 3 * LENGTH * 2 * 4
    assert least.flops == TOKENS * per_token
    parameters = sum(p.numel() for p in decoder.parameters())
    stream = TOKENS * 2 * 3 * 8 * (5 * 4 + 4 * product)
    embedding = TOKENS * 8 * (weight + 2 * 4) + 10 * 8 * weight
    assert least.bytes == stream + embedding + (7 * weight + copied) * parameters
    assert least.matmul_seconds == least.flops / UNIT.flops[precision]
    assert least.seconds == least.matmul_seconds + least.bytes


def test_both_models_of_one_shape_have_nearly_one_floor() -> None:
    with torch.device("meta"):
        ours, theirs = (floor(model(DIMS), LENGTH, TOKENS, "32-true", UNIT) for model in (NGPT, Nemotron))
    assert ours.flops == theirs.flops
    assert ours.bytes == pytest.approx(theirs.bytes, rel=0.05)


def test_rates_are_those_of_the_fastest_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_least_seconds", lambda call, device, threads: 0.25)
    before = torch.get_num_threads()
    machine = measured(torch.device("cpu"), 1)
    assert torch.get_num_threads() == before
    assert machine.flops == dict.fromkeys(module.PRODUCT_TYPES, 2 * 2048**3 / 0.25)
    assert machine.bandwidth == 2 * 4 * 2**24 / 0.25


def test_a_rate_counts_each_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(module, "clock", lambda device: float(next(now)))
    assert module._least_seconds(lambda: None, torch.device("cpu"), threads=4) == 0.25


def test_hardware_goes_by_name() -> None:
    assert named("h100") is NAMED["h100"]
    assert NAMED["h100"].flops["bf16-mixed"] / NAMED["h100"].flops["32-true"] > 10
    with pytest.raises(InputError, match=r"the hardware is 'abacus': choose one of a100, h100"):
        named("abacus")


def test_a_precision_without_a_floor_is_refused(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="precision is '16-mixed', for which there is no floor"):
        floor(decoder, LENGTH, TOKENS, "16-mixed", UNIT)
