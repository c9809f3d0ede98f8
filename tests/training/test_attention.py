"""Which attention function a run computes with, settled before its first step and recorded."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ngpt_lab.models import NGPT, Dims
from ngpt_lab.nn.attend_flex import FLEX
from ngpt_lab.nn.attend_sdpa import SDPA
from ngpt_lab.training.attention import settle_attention

ATTENTION = "--model.init_args.backbone.init_args.attention"
SIZES = Dims(vocab_size=17, d_model=12, n_layers=1, n_heads=2, n_kv_heads=1, d_head=16, d_ff=20)


@pytest.mark.parametrize(
    ("precision", "attention", "used", "kernel"),
    [
        ("32-true", "auto", "sdpa", "flash"),
        ("bf16-mixed", "auto", "blocked", "formula in blocks"),
        ("32-true", "sdpa-math", "sdpa-math", "math"),
    ],
)
def test_a_run_records_what_attention_was_asked_for_and_used(
    precision: str, attention: str, used: str, kernel: str, fit: Callable[..., Path]
) -> None:
    folder = fit("ngpt", f"--trainer.precision={precision}", f"{ATTENTION}={attention}", "--trainer.max_steps=2")
    record = json.loads((folder / "run.json").read_text())
    assert record["model"]["attention"] == {"asked": attention, "used": used, "kernel": kernel}


def test_attention_that_the_device_does_not_have_is_refused_before_a_run_begins(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], tmp_path: Path
) -> None:
    told = refused(command(tmp_path / "run", "ngpt", f"{ATTENTION}=flash"))
    assert "attention is 'flash', which runs on cuda alone, and this is cpu: use 'auto', 'sdpa' or 'eager'" in told
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("windows", "compiled", "used"), [("MaskedDocuments", True, FLEX), ("AcrossDocuments", True, SDPA)])
def test_auto_is_told_of_documents_and_compilation(windows: str, compiled: bool, used: Any) -> None:
    backbone = NGPT(SIZES)
    asked = []

    class Asked:
        name = "auto"

        def settled(self, situation: Any) -> Any:
            asked.append(situation)
            return backbone_attend.settled(situation)

    backbone_attend, backbone.attend = backbone.attend, Asked()  # type: ignore[assignment]
    module: Any = SimpleNamespace(backbone=backbone, pads=False, compile_backbone=compiled)
    data = SimpleNamespace(seq_len=64, describe=lambda: {"windows": windows})
    settle_attention(module, torch.device("cpu"), "bf16-mixed", data)
    (situation,) = asked
    assert (situation.documents, situation.compiled) == (windows == "MaskedDocuments", compiled)
    assert (situation.dtype, situation.queries, situation.gradients) == (torch.bfloat16, 64, True)
    on_gpu = type(situation)(torch.device("cuda"), *list(vars(situation).values())[1:])
    assert backbone_attend.used(on_gpu) is used
