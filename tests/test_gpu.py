"""What only a GPU can show; `make test-gpu` runs it."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.models import GPT, NGPT, Dims, Nemotron
from ngpt_lab.nn.linear import weight_error
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.module import BackboneModule

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

CONFIGS = Path(__file__).parents[1] / "configs"
DIMS = Dims(256, 128, 2, 4, 2, 32, 256)


@pytest.mark.parametrize("model", [NGPT, Nemotron, GPT])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_attention_functions_agree_with_their_gradients(model: type[NGPT | Nemotron | GPT]) -> None:
    tokens = torch.randint(0, 256, (2, 64), device="cuda")
    mask = (torch.arange(64, device="cuda") >= torch.tensor([[0], [9]], device="cuda")).long()
    results = {}
    for attention in ("eager", "sdpa", "flex"):
        torch.manual_seed(0)
        decoder = model(DIMS, attention=attention).cuda()
        logits = decoder(tokens, attention_mask=mask)[1, 9:]
        logits.square().mean().backward()
        results[attention] = logits, decoder.blocks[0].attention.q.weight.grad
    for attention in ("sdpa", "flex"):
        for ours, theirs in zip(results[attention], results["eager"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_run_in_bf16_learns_and_stays_on_the_sphere(model: str, compiled: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    text = tmp_path / "words.txt"
    text.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(3000)))
    torch.compiler.reset()
    files = ["base.yaml", f"model/{model}.yaml", "size/debug.yaml"]
    words = [word for file in files for word in ("-c", str(CONFIGS / file))]
    words += ["--data.source=TextFiles", f"--data.source.files={text}"]
    words += [f"--trainer.default_root_dir={tmp_path / 'run'}", f"--model.compile={compiled}"]
    words += ["--trainer.accelerator=gpu", "--trainer.precision=bf16-mixed", "--trainer.accumulate_grad_batches=4"]
    cli = CLI(["fit", *words])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["device"]["kind"] == "cuda"
    assert record["final"]["val/loss"] < 3
    if model == "ngpt":
        assert weight_error(cli.model) <= 2e-6


def test_a_run_on_the_gpu_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    files = ["base.yaml", "model/ngpt.yaml", "size/debug.yaml"]
    words = [word for file in files for word in ("-c", str(CONFIGS / file))] + ["--trainer.accelerator=gpu"]
    CLI(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    checkpoints = tmp_path / "stopped" / "checkpoints"
    for later in (*checkpoints.glob("step-00003[1-9].ckpt"), *checkpoints.glob("step-00004*.ckpt")):
        later.unlink()
    CLI(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'stopped'}", "--ckpt_path=last"])
    whole, stopped = (
        [row["train/loss"] for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open()) if "train/loss" in row]
        for name in ("whole", "stopped")
    )
    assert stopped == pytest.approx(whole, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_a_run_on_the_gpu_within_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = BackboneModule.keep_loss

    def spoiled(self: BackboneModule, loss: torch.Tensor) -> torch.Tensor:
        return keep(self, loss * (float("nan") if self.trainer.global_step == 20 else 1.0))

    monkeypatch.setattr(BackboneModule, "keep_loss", spoiled)
    files = ["base.yaml", "model/ngpt.yaml", "size/debug.yaml"]
    words = [word for file in files for word in ("-c", str(CONFIGS / file))] + ["--trainer.accelerator=gpu"]
    with pytest.raises(InputError, match="not finite at step 21"):
        CLI(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert max(row["step"] for row in rows) in (20, 21)
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))] == [
        "step-000010.ckpt",
        "step-000020.ckpt",
    ]


# flash_attention_2 needs the package flash-attn; where it is not installed the others are held against each other.
@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what transformers and the compiler call in torch
@torch.no_grad()
def test_hugging_face_s_classes_continue_alike_in_bf16_with_every_cache_and_attention(attention: str) -> None:
    from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    torch.manual_seed(0)
    model = NGPTForCausalLM(NGPTConfig(vocab_size=256, **sizes, **heads)).cuda().eval()
    tokens = torch.randint(0, 256, (2, 24), device="cuda")
    mask = (torch.arange(24, device="cuda") >= torch.tensor([[0], [7]], device="cuda")).long()
    told = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    model.set_attn_implementation("eager")
    expected = model.generate(tokens, **told)
    model.set_attn_implementation(attention)
    assert torch.equal(model.generate(tokens, **told), expected)
    assert torch.equal(model.generate(tokens, **told, cache_implementation="static"), expected)
    half = model.to(torch.bfloat16)(tokens, attention_mask=mask).logits
    assert half.dtype == torch.bfloat16
    assert half[mask.bool()].isfinite().all()


@torch.no_grad()
def test_our_own_loop_continues_on_the_gpu_as_on_the_cpu() -> None:
    from ngpt_lab.generation.loop import generate

    torch.manual_seed(0)
    decoder, tokens = NGPT(DIMS).double().eval(), torch.randint(0, 256, (2, 24))
    here = torch.stack(list(generate(decoder, tokens, max_new_tokens=16)))
    there = torch.stack(list(generate(decoder.cuda(), tokens.cuda(), max_new_tokens=16)))
    assert torch.equal(here, there.cpu())
