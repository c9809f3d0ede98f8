"""What the README shows runs."""

import re
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_the_five_lines_of_python_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown: dict[str, object] = {}
    exec(next(block for block in BLOCKS if "Trainer(" in block), shown)
    trainer = shown["trainer"]
    assert trainer.global_step == 20  # type: ignore[attr-defined]
    assert any(isinstance(callback, ModelCheckpoint) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    assert shown["model"].train_loss < 5.0  # type: ignore[attr-defined]


def test_the_part_it_adds_fills_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_step.py").write_text(next(block for block in BLOCKS if "HalfStep" in block))
    monkeypatch.syspath_prepend(tmp_path)
    import half_step

    from ngpt_lab.models import NGPT, Dims

    model = NGPT(Dims(32, 16, 2, 2, 1, 8, 32), mlp_residual=half_step.HalfStep)
    tokens = torch.arange(16).view(2, 8)
    assert model(tokens, tokens).isfinite()
    torch.testing.assert_close(model.stream(tokens)[-1].norm(dim=-1), torch.ones(2, 8))
    sys.modules.pop("half_step")


def test_the_files_it_names_exist() -> None:
    named = set(re.findall(r"(?:ngpt_lab|configs|tests|experiments)/[\w./-]+", README))
    missing = {name for name in named if not (ROOT / name.rstrip("./")).exists()}
    assert missing == {"ngpt_lab/models/ablations/half_step.py"}
