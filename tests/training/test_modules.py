"""LightningModules around a backbone, in plain Python."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ngpt_lab.data import TextDataModule
from ngpt_lab.errors import InputError
from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.nn.next_token import cross_entropy
from ngpt_lab.training import AdamW, BackboneModule, Cosine, LanguageModel, NormalizeWeights
from ngpt_lab.training.language_model import TokenEvaluation
from ngpt_lab.training.module import refuse_what_is_not_supported

DIMS = Dims(256, 32, 2, 2, 1, 16, 64)
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class LastTokenClass(BackboneModule):
    """Which of two classes a sequence is in, read off the final stream: a module that is no language model."""

    def __init__(self, backbone: Nemotron | NGPT) -> None:
        super().__init__(backbone, AdamW(lr=1e-2), Cosine())
        self.score = nn.Linear(backbone.dims.d_model, 2)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        tokens, label = batch
        x = self.backbone.final(self.backbone.stream(tokens)[-1])
        return self.keep_loss(nn.functional.cross_entropy(self.score(x[:, -1]), label))


@pytest.mark.parametrize("model", [NGPT, Nemotron])
def test_another_module_trains_the_same_backbones(model: type[NGPT | Nemotron]) -> None:
    torch.manual_seed(0)
    label = torch.arange(64) % 2
    tokens = torch.randint(0, 100, (64, 8)) + 100 * label[:, None]
    module = LastTokenClass(model(DIMS))
    trainer = Trainer(max_steps=30, callbacks=[NormalizeWeights(int(model is NGPT))], **QUIET)
    trainer.fit(module, DataLoader(list(zip(tokens, label, strict=True)), batch_size=64))
    assert module.train_loss < 0.6
    x = module.backbone.final(module.backbone.stream(tokens)[-1])[:, -1]
    assert (module.score(x).argmax(dim=-1) == label).float().mean() > 0.95


def test_ngpt_without_its_callback_is_refused_unless_switched_off() -> None:
    data = TextDataModule(seq_len=16, batch_size=2, eval_windows=2)
    module = LanguageModel(NGPT(DIMS), AdamW(), Cosine())
    with pytest.raises(InputError, match="needs NormalizeWeights"):
        Trainer(max_steps=1, **QUIET).fit(module, datamodule=data)
    Trainer(max_steps=1, callbacks=[NormalizeWeights(0)], **QUIET).fit(module, datamodule=data)


def test_evaluation_weighs_every_token_alike() -> None:
    data = TextDataModule(seq_len=32, batch_size=3, eval_windows=7)  # a last batch of one window
    module = LanguageModel(Nemotron(DIMS), AdamW(), Cosine())
    trainer = Trainer(**QUIET)
    trainer.validate(module, datamodule=data, verbose=False)
    batches = list(data.val_dataloader())
    tokens, targets = (torch.cat([getattr(batch, part) for batch in batches]) for part in ("tokens", "targets"))
    assert len(tokens) == 7
    with torch.no_grad():
        logits = module.backbone(tokens)
    loss = float(cross_entropy(logits, targets))
    assert module.evaluated["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert module.evaluated["val/perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert module.evaluated["val/bits_per_byte"] == pytest.approx(loss / math.log(2), rel=1e-5)
    assert module.evaluated["val/accuracy"] == pytest.approx(float((logits.argmax(-1) == targets).float().mean()), rel=1e-5)


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_float16_is_refused(precision: str) -> None:
    trainer = SimpleNamespace(strategy=SingleDeviceStrategy("cpu"), gradient_clip_algorithm=None, precision=precision)
    with pytest.raises(InputError, match=f"'{precision}', .*: use 'bf16-mixed'"):
        refuse_what_is_not_supported(trainer)  # type: ignore[arg-type]


def test_clipping_keeps_the_norm_before_it() -> None:
    module = LanguageModel(Nemotron(DIMS), AdamW(), Cosine())
    tokens = torch.arange(32).view(2, 16)
    module.backbone(tokens, tokens).backward()
    expected = torch.sqrt(sum(p.grad.square().sum() for p in module.parameters()))
    module.configure_gradient_clipping(None, gradient_clip_val=0.01)
    torch.testing.assert_close(module.grad_norm, expected)
    assert module.clipped
    clipped = torch.sqrt(sum(p.grad.square().sum() for p in module.parameters()))
    assert float(clipped) == pytest.approx(0.01, rel=1e-3)


def test_a_held_out_loss_keeps_its_digits_where_everything_is_stored_in_bfloat16() -> None:
    evaluation = TokenEvaluation()
    losses = torch.rand(3, 2, 16, generator=torch.Generator().manual_seed(0)) + 2
    targets = torch.zeros(2, 16, dtype=torch.long)
    torch.set_default_dtype(torch.bfloat16)  # as lightning does around every step of such a run
    try:
        for batch in losses:
            evaluation.count(batch, targets == 0, targets)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(evaluation.compute()["loss"], losses.mean(), rtol=1e-6, atol=0)


def test_a_held_out_batch_in_which_no_token_counts_changes_nothing() -> None:
    evaluation, targets = TokenEvaluation(), torch.zeros(2, 16, dtype=torch.long)
    evaluation.count(torch.full((2, 16), 3.0), targets == 0, targets)
    evaluation.count(torch.zeros(2, 16), targets == 1, targets - 100)
    assert {name: float(value) for name, value in evaluation.compute().items()} == {"loss": 3.0, "accuracy": 1.0}
