"""The shipped enwik8 experiment trains the small library's own decoder."""

from pathlib import Path

import pytest
import torch

from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.lucidrains import DEFAULTS, KIND, build
from ngpt_lab.training.cli import DryCLI

ROOT = Path(__file__).parents[2]
OWN = {"num_tokens": 256, "dim": 512, "depth": 8, "tied_embedding": True, "add_value_residual": True, "attn_norm_qk": False}


@pytest.fixture(scope="module")
def shipped() -> DryCLI:
    files = ["configs/base.yaml", "configs/data/enwik8.yaml", "experiments/enwik8/ngpt.yaml"]
    return DryCLI([word for file in files for word in ("-c", str(ROOT / file))], on="cpu")


def test_the_decoder_computes_what_the_small_library_computes(shipped: DryCLI) -> None:
    torch.manual_seed(0)
    ours, theirs = shipped.model.backbone, build(Fields(KIND, OWN, DEFAULTS))
    scales = {name: value for name, value in theirs.state_dict().items() if name.endswith("stored")}
    assert scales
    for name, value in scales.items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randint(256, (2, 40))
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=0, atol=1e-5)


def test_the_settings_are_the_small_librarys(shipped: DryCLI) -> None:
    settings, optimizer = shipped.settings, "model.init_args.optimizer.init_args"
    assert (settings["data.init_args.seq_len"], settings["data.init_args.batch_size"]) == (512, 4)
    assert (settings["trainer.accumulate_grad_batches"], settings["trainer.gradient_clip_val"]) == (4, None)
    assert (settings[f"{optimizer}.lr"], settings[f"{optimizer}.betas"]) == (1e-3, [0.9, 0.999])
    assert {shipped.model.schedule.factor(step, 100_000, 8192) for step in (0, 1, 50_000, 99_999)} == {1.0}
