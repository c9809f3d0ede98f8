"""Which attention function computes a call: what each refuses, what `auto` takes, and what is named."""

from dataclasses import replace

import pytest
import torch
from torch.nn import attention as of_torch

from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Dims
from ngpt_lab.nn import attend_function
from ngpt_lab.nn.attend import ATTENTION, Auto, attention_named
from ngpt_lab.nn.attend_function import Situation
from ngpt_lab.nn.attend_sdpa import FLASH3, SDPA, SDPA_FLASH

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
DIMS = Dims(vocab_size=17, d_model=12, n_layers=3, n_heads=4, n_kv_heads=2, d_head=16, d_ff=20)


def situation(device=CPU, dtype=torch.float32, queries=64, keys=64, **known):
    return Situation(device, dtype, 4, 2, known.pop("d_head", 64), queries, keys, **known)


HALF = {"device": GPU, "dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("flash", {}, "'flash', which runs on cuda alone, and this is cpu: use 'auto', 'sdpa' or 'eager'"),
        ("flash", {"device": GPU}, "'flash', which computes in half precision, and this is torch.float32"),
        ("flash", {**HALF, "documents": True}, "'flash', which takes no mask"),
        ("flash", HALF, r"'flash', which needs the module flash_attn of flash-attn 2 \(pip install 'ngpt-lab\[flash\]'\)"),
        ("flash3", HALF, "'flash3', which needs the module flash_attn_interface of FlashAttention 3"),
        ("flash4", HALF, "'flash4', which needs the module flash_attn.cute of FlashAttention 4"),
        ("flex", {"gradients": True}, "'flex', which cannot train on a cpu"),
        ("flex", {"dropout": 0.1}, "'flex', which has no dropout there, and attention_dropout is 0.1"),
        ("flex", {"device": GPU, "d_head": 8}, "'flex', which takes heads of 16 to .* channels, not 8"),
        ("varlen", {}, "'varlen', which runs on cuda alone"),
        ("varlen", {**HALF, "padding": True}, "'varlen', which takes documents, but no padding"),
        ("varlen", {**HALF, "dropout": 0.1}, "'varlen', which has no dropout there"),
        ("sdpa-cudnn", {}, "'sdpa-cudnn', which runs on cuda alone"),
        ("sdpa-efficient", {}, "'sdpa-efficient', which runs on cuda alone"),
        ("sdpa-flash", {"dropout": 0.1}, "'sdpa-flash', which has no dropout there"),
        ("sdpa-flash", {**HALF, "d_head": 512}, "'sdpa-flash', which takes heads of 8 to 256 channels, not 512"),
        ("sdpa-flash", {**HALF, "queries": 3}, "'sdpa-flash', which takes no mask, and documents, padding or a cache need one"),
    ],
)
def test_what_a_function_cannot_do_is_refused_in_a_sentence(name, known, told):
    with pytest.raises(InputError, match=f"attention is {told}"):
        ATTENTION[name].used(situation(**known))


def test_a_model_refuses_what_its_function_cannot_do():
    with pytest.raises(InputError, match="attention is 'flex', which cannot train on a cpu"):
        NGPT(DIMS, attention="flex")(torch.zeros(1, 4, dtype=torch.long))
    with torch.no_grad(), pytest.raises(InputError, match=r"'flex', which has no dropout there, and attention_dropout is 0\.1"):
        NGPT(DIMS, attention="flex", attention_dropout=0.1)(torch.zeros(1, 4, dtype=torch.long))


def test_an_unknown_name_is_refused_with_the_names_there_are():
    assert attention_named("sdpa") is SDPA
    with pytest.raises(InputError, match="attention is 'flash5': choose one of auto, sdpa, sdpa-flash, "):
        attention_named("flash5")


@pytest.mark.parametrize(
    ("known", "used"),
    [
        ({}, "sdpa"),
        ({"dtype": torch.float64, "documents": True}, "sdpa"),
        ({"dtype": torch.bfloat16}, "blocked"),
        ({"dtype": torch.bfloat16, "padding": True, "dropout": 0.1}, "blocked"),
        ({"dtype": torch.bfloat16, "queries": 1}, "sdpa"),
        ({"dtype": torch.bfloat16, "queries": 8192, "keys": 8192}, "sdpa"),
        (HALF, "sdpa"),
        ({**HALF, "documents": True, "compiled": True}, "flex"),
        ({**HALF, "documents": True}, "sdpa"),
        ({**HALF, "documents": True, "compiled": True, "dropout": 0.1}, "sdpa"),
        ({**HALF, "documents": True, "compiled": True, "d_head": 8}, "sdpa"),
        ({"device": GPU, "padding": True, "compiled": True}, "sdpa"),
    ],
)
def test_auto_takes(known, used):
    assert Auto().used(situation(**known)).name == used


@pytest.fixture
def hopper(monkeypatch):
    """A GPU that FlashAttention 3 is made for, with its package; returns the implementations that torch was told of."""
    told = []

    class Handle:
        def remove(self):
            told.append("removed")

    def activate():
        told.append("FA3")
        return Handle()

    monkeypatch.setattr(attend_function, "installed", lambda module: module == "flash_attn_interface")
    monkeypatch.setattr(attend_function, "try_out", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setitem(of_torch._registry._FLASH_ATTENTION_IMPLS, "FA3", activate)
    yield told
    of_torch.restore_flash_attention_impl(_raise_warn=False)


def test_auto_settles_on_flash_attention_3_where_it_is_installed_and_masks_stay_with_torch(hopper):
    auto = Auto().settled(situation(**HALF, gradients=True))
    assert auto.used(situation(**HALF)) is FLASH3
    assert auto.used(situation(**HALF, padding=True)) is SDPA
    assert auto.used(situation(device=GPU)) is SDPA
    assert auto.settled(situation(**HALF)) is auto
    assert hopper == ["FA3"]


def test_each_function_is_computed_by_its_own_implementation_in_turn(hopper):
    for function in (FLASH3, FLASH3, SDPA_FLASH, FLASH3):
        function.used(situation(**HALF))
    assert hopper == ["FA3", "removed", "FA3"]


def test_a_kernel_that_fails_when_tried_out_is_refused_before_the_first_step(monkeypatch):
    def fails(*_):
        raise RuntimeError("No available kernel.\nAborting execution.")

    function = replace(SDPA, name="sdpa-cudnn", compute=fails)
    with pytest.raises(InputError, match=r"'sdpa-cudnn', which fails here \(No available kernel. Aborting execution.\): use"):
        attend_function.try_out(function, situation())


@pytest.mark.parametrize("name", ["sdpa", "eager", "blocked", "sdpa-flash"])
def test_what_computes_is_named(name):
    kernel = ATTENTION[name].kernel(situation(documents=True))
    assert kernel == {"sdpa": "flash", "eager": "formula", "blocked": "formula in blocks", "sdpa-flash": "flash"}[name]
    assert SDPA.kernel(situation(dropout=0.1)) == "math"
