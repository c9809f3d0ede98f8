"""The weights are on the sphere after every step, in every checkpoint, at every validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.nn.linear import stream_matrices, weight_error
from ngpt_lab.training import NormalizeWeights
from ngpt_lab.training.cli import CLI

Fit = Callable[..., Path]


def of_backbone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_norms_hold_under_accumulation_and_bf16_after_every_step_and_in_a_checkpoint(
    compiled: bool, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[float] = []
    after_batch = CLI.instantiate_trainer

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            errors.append(weight_error(pl_module.backbone))

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            errors.append(weight_error(pl_module.backbone))

    def watched(self: CLI, **kwargs: Any) -> Any:
        trainer = after_batch(self, **kwargs)
        trainer.callbacks.append(Watch())
        return trainer

    monkeypatch.setattr(CLI, "instantiate_trainer", watched)
    torch.compiler.reset()
    folder = fit(
        "ngpt",
        "--trainer.accumulate_grad_batches=4",
        "--trainer.precision=bf16-mixed",
        f"--model.compile={str(compiled).lower()}",
        "--checkpoint.every_n_train_steps=5",
    )
    assert len(errors) >= 4 * 12 + 1
    assert max(errors) <= 2e-6
    saved = torch.load(folder / "checkpoints" / "step-000005.ckpt", weights_only=True)["state_dict"]
    twin = NGPT(Dims(256, 64, 2, 4, 2, 16, 256))
    twin.load_state_dict(of_backbone(saved))
    assert weight_error(twin) <= 2e-6


def steps_normalized(every_n_steps: int, steps: int) -> list[bool]:
    """Whether the weights are on the sphere after each of some steps."""
    model = Nemotron(Dims(16, 8, 1, 2, 1, 4, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    taken = 0
    NormalizeWeights(every_n_steps).attach(optimizer, model, lambda: taken)
    tokens = torch.arange(8).view(1, 8)
    on_sphere = []
    for step in range(steps):
        taken = step + 1
        model(tokens, tokens).backward()
        optimizer.step()
        on_sphere.append(weight_error(model) < 1e-6)
    return on_sphere


def test_it_normalises_every_n_steps_and_never_at_zero() -> None:
    assert steps_normalized(1, 4) == [True] * 4
    assert steps_normalized(3, 6) == [False, False, True, False, False, True]
    assert steps_normalized(0, 3) == [False] * 3


def test_first_lengths_are_kept_through_training(fit: Fit) -> None:
    keep = ["--normalize_weights.every_n_steps=1", "--normalize_weights.lengths=first"]
    folder = fit("nemotron", *keep, "--trainer.max_steps=20")

    def lengths(step: int) -> dict[str, torch.Tensor]:
        state = torch.load(folder / "checkpoints" / f"step-{step:06d}.ckpt", weights_only=True)["state_dict"]
        model = Nemotron(Dims(256, 64, 2, 4, 2, 16, 256))
        model.load_state_dict(of_backbone(state))
        return {name: torch.linalg.vector_norm(m.weight.detach(), dim=m.norm_dim) for name, m in stream_matrices(model)}

    early, late = lengths(10), lengths(20)
    for name in early:
        torch.testing.assert_close(late[name], early[name], rtol=2e-6, atol=0)
        assert early[name].std() > 1e-3  # not all alike: these are the initial lengths, not one


def test_the_baseline_is_left_alone(fit: Fit) -> None:
    folder = fit("nemotron")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert (torch.linalg.vector_norm(state["backbone.embedding.weight"], dim=1) - 1).abs().min() > 0.1
