"""The rehearsal against the real thing: bytes that a real step holds, on CPU, where every storage can be seen."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ngpt_lab.bench.arm import Arm, precision
from ngpt_lab.bench.footprint import optimizer_state, saved_for_backward
from ngpt_lab.bench.step import load
from ngpt_lab.plan.compiled import _kept, kept_when_compiled
from ngpt_lab.plan.live import LiveBytes
from ngpt_lab.plan.plan import CHECKPOINTING
from ngpt_lab.plan.rehearsal import Step, kept, rehearse
from ngpt_lab.training import LanguageModel
from ngpt_lab.training.cli import CLI, DryCLI

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")
TOLERANCE = 0.01
WIDE = ["--data.batch_size=2", "--model.backbone.dims.vocab_size=4096", "--model.backbone.dims.d_ff=384"]


def arguments(model: str, size: str, *settings: str) -> list[str]:
    words = [word for part in ("base", f"model/{model}", f"size/{size}") for word in ("-c", f"{CONFIGS}/{part}.yaml")]
    return [*words, "--trainer.accelerator=cpu", *settings]


def step_of(cli: DryCLI) -> Step:
    batch = cli.datamodule.batch_size, cli.datamodule.seq_len
    accumulated, clip = cli.settings["trainer.accumulate_grad_batches"], cli.settings["trainer.gradient_clip_val"]
    return Step(batch, accumulated, clip, precision(cli.settings["trainer.precision"], CPU)[1], gpu=False)


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
@pytest.mark.parametrize(
    ("settings", "kind"),
    [(["debug"], "bf16-mixed"), (["1m", "--data.batch_size=4"], "32-true"), (["1m", *WIDE], "bf16-mixed")],
    ids=["debug", "1m", "wide"],
)
def test_a_rehearsal_finds_what_a_real_step_holds(model: str, settings: list[str], kind: str) -> None:
    words = arguments(model, *settings, f"--trainer.precision={kind}")
    cli = DryCLI(words)
    rehearsed = rehearse(cli, step_of(cli))
    arm = Arm(load(words), CPU, compiled=False)
    kept = saved_for_backward(arm)
    arm.step()
    assert rehearsed.weights == sum(p.nbytes for p in arm.module.parameters()) == rehearsed.gradients
    assert rehearsed.optimizer == sum(tensor.nbytes for tensor in optimizer_state(arm.optimizer))
    assert sum(rehearsed.activations.values()) == pytest.approx(kept, rel=TOLERANCE)


@pytest.mark.parametrize(("model", "accumulated"), [("ngpt", 1), ("nemotron", 2)])
def test_a_runs_second_step_is_fullest_where_its_rehearsal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, accumulated: int
) -> None:
    words = arguments(model, "debug", f"--trainer.accumulate_grad_batches={accumulated}", "--trainer.precision=bf16-mixed")
    seen: list[LiveBytes] = []

    def begin(self: LanguageModel, batch: object, k: int) -> None:
        if self.trainer.global_step == 1 and k % accumulated == 0:
            optimizer = self.trainer.optimizers[0]
            grads = [p.grad for p in self.parameters() if p.grad is not None]
            seen.append(LiveBytes([*self.parameters(), *grads, *optimizer_state(optimizer)]).__enter__())

    def end(self: LanguageModel, outputs: object, batch: object, k: int) -> None:
        if self.trainer.global_step == 2:
            seen[0].__exit__(None, None, None)

    monkeypatch.setattr(LanguageModel, "on_train_batch_start", begin)
    monkeypatch.setattr(LanguageModel, "on_train_batch_end", end)
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1", "--trainer.log_every_n_steps=1000"]
    CLI(["fit", *words, "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}/run", *quiet])
    cli = DryCLI(words)
    assert rehearse(cli, step_of(cli)).peak == pytest.approx(seen[0].peak, rel=0.02)


def test_a_rehearsal_leaves_the_model_as_it_was() -> None:
    cli = DryCLI(arguments("ngpt", "debug"))
    assert rehearse(cli, step_of(cli)) == rehearse(cli, step_of(cli))
    assert {p.device.type for p in cli.model.parameters()} == {"meta"}


def test_on_a_gpu_attention_keeps_no_scores_unless_its_function_does() -> None:
    kept = {}
    for name in ("auto", "flex", "eager"):
        cli = DryCLI(arguments("ngpt", "debug", "--trainer.precision=bf16-mixed", f"--model.backbone.attention={name}"))
        kept[name] = rehearse(cli, replace(step_of(cli), gpu=True)).activations["attention"]
    assert kept["auto"] == kept["flex"] < kept["eager"]


def test_documents_cost_their_mask() -> None:
    kept = []
    for windows in ("AcrossDocuments", "MaskedDocuments"):
        cli = DryCLI(arguments("nemotron", "debug", f"--data.windows={windows}", "--model.backbone.attention=sdpa"))
        kept.append(sum(rehearse(cli, step_of(cli)).activations.values()))
    assert kept[1] - kept[0] >= 8 * 64 * 64


def test_checkpointing_keeps_less_and_the_plan_follows_the_config() -> None:
    selective, full = ("SelectiveCheckpointing", "FullCheckpointing")
    cli = DryCLI(arguments("nemotron", "debug", f"--model.activation_checkpointing={full}"))
    sizes = [kept(cli, step_of(cli), CHECKPOINTING[name]) for name in ("all kept", selective, full)]
    assert sizes[0] > sizes[1] > sizes[2] == sum(rehearse(cli, step_of(cli)).activations.values())


@pytest.mark.slow
@pytest.mark.parametrize("every", [None, 2])
def test_what_a_compiled_pass_keeps_is_counted_on_from_few_blocks(every: int | None) -> None:
    checkpointing = f"--model.activation_checkpointing={{class_path: FullCheckpointing, init_args: {{every: {every}}}}}"
    cli = DryCLI(arguments("nemotron", "debug", "--model.backbone.dims.n_layers=5", *([checkpointing] if every else [])))
    assert kept_when_compiled(cli, step_of(cli)) == pytest.approx(_kept(cli, 5, step_of(cli)), rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_a_compiled_pass_keeps_what_was_planned(model: str, kind: str) -> None:
    words = arguments(model, "1m", f"--trainer.precision={kind}")
    cli = DryCLI(words)
    kept = saved_for_backward(Arm(load(words), CPU, compiled=True))
    assert kept_when_compiled(cli, step_of(cli)) == pytest.approx(kept, rel=TOLERANCE)
