"""What was trained comes back as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.interop.trained import Trained, load_trained, run_data, write_weights
from ngpt_lab.models import Decoder
from ngpt_lab.nn.next_token import cross_entropy

CONFIGS = Path(__file__).parents[2] / "configs"
Train = Callable[..., Path]
ARMS = {
    "ngpt": ("model/ngpt.yaml",),
    "ngpt-parametrized-tied": ("model/ngpt.yaml", "ablation/parametrized.yaml", "ablation/tied_embeddings.yaml"),
    "nemotron": ("model/nemotron.yaml",),
    "gpt": ("model/gpt.yaml", "ablation/qk_norm.yaml"),
}


@pytest.fixture(scope="module")
def runs(train: Train, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each arm."""
    at = tmp_path_factory.mktemp("runs")
    return {name: train(at / name, *(CONFIGS / file for file in files)) for name, files in ARMS.items()}


def validation_loss(decoder: Decoder, folder: Path) -> float:
    batches = list(run_data(folder).val_dataloader())
    total = sum(cross_entropy(decoder(tokens), targets) * targets.numel() for tokens, targets, _ in batches)
    return float(total / sum(targets.numel() for _, targets, _ in batches))


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_a_loaded_decoder_has_the_validation_loss_that_its_run_recorded(arm: str, runs: dict[str, Path]):
    trained = load_trained(runs[arm])
    recorded = json.loads((runs[arm] / "run.json").read_text())["final"]["val/loss"]
    assert validation_loss(trained.decoder, trained.folder) == pytest.approx(recorded, abs=1e-5)
    assert trained.label == arm
    assert trained.settings["trainer.max_steps"] == 6
    assert not trained.decoder.training


def test_weights_written_beside_a_config_are_read_without_checkpoint_or_text(runs: dict[str, Path], tmp_path: Path):
    run = runs["ngpt-parametrized-tied"]
    trained = load_trained(run)
    config = (run / "config.yaml").read_text().replace(".txt", "-that-is-gone.txt")
    (tmp_path / "config.yaml").write_text(config)
    write_weights(trained.decoder, tmp_path)
    again = load_trained(tmp_path)
    assert same(again, trained)
    with pytest.raises(InputError, match="that-is-gone"):
        run_data(tmp_path)


def test_a_checkpoint_can_be_named_its_label_says_which_and_the_random_state_stays(runs: dict[str, Path]):
    early = runs["ngpt"] / "checkpoints" / "step-000003.ckpt"
    random = torch.get_rng_state()
    trained, last = load_trained(early), load_trained(runs["ngpt"] / "checkpoints" / "last.ckpt")
    assert trained.folder.resolve() == runs["ngpt"].resolve()
    assert trained.label == f"ngpt@{early.stem}"
    assert last.label == "ngpt"
    assert not same(trained, last)
    assert torch.equal(torch.get_rng_state(), random)  # building a decoder draws weights


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        load_trained(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_no_run_is_refused_in_one_sentence(runs: dict[str, Path], tmp_path: Path):
    assert f"there is no run folder or checkpoint {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere")
    assert "has no config.yaml" in refusal(tmp_path)
    shutil.copy(runs["ngpt"] / "config.yaml", tmp_path)
    assert "has neither checkpoints/last.ckpt nor weights.safetensors" in refusal(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"half a fi")
    assert "weights.safetensors is not a safetensors file that can be read" in refusal(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.save([1, 2], tmp_path / "checkpoints" / "last.ckpt")
    assert "last.ckpt holds no weights of a run" in refusal(tmp_path)
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half a fi")
    assert "last.ckpt is not a checkpoint that can be read" in refusal(tmp_path)


def test_weights_of_another_model_are_refused_by_name(runs: dict[str, Path], tmp_path: Path):
    shutil.copy(runs["nemotron"] / "config.yaml", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(runs["gpt"] / "checkpoints" / "last.ckpt", tmp_path / "checkpoints")
    assert "does not fit the model: backbone.blocks.0.attention.qk_norm.s_qk.stored is (64,) in the file" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    write_weights(load_trained(runs["ngpt"]).decoder, tmp_path)
    assert "weights.safetensors does not fit the model: blocks.0.attention.qk_norm" in refusal(tmp_path)


def same(one: Trained, other: Trained) -> bool:
    weights: dict[str, Any] = other.decoder.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.decoder.state_dict().items())
