"""What only a GPU can show; `make test-gpu` runs it."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from ngpt_lab.errors import InputError
from ngpt_lab.models import GPT, NGPT, Dims, Nemotron
from ngpt_lab.nn.attend import ATTENTION, attention_named
from ngpt_lab.nn.attend_function import AttentionFunction, Situation
from ngpt_lab.nn.linear import weight_error
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.module import BackboneModule

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

CONFIGS = Path(__file__).parents[1] / "configs"
DIMS = Dims(256, 128, 2, 4, 2, 32, 256)


def attended(decoder: NGPT | Nemotron | GPT, attention: str, dtype: torch.dtype, **seen: torch.Tensor) -> list[torch.Tensor]:
    """Logits (2, 200, 256) and the gradient of a query matrix, under an attention function."""
    decoder.attend, tokens = attention_named(attention), torch.arange(400, device="cuda").view(2, 200) % 256
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        logits = decoder(tokens, **seen).float()
    shown = logits if "attention_mask" not in seen else logits[seen["attention_mask"].bool()]
    decoder.zero_grad()
    shown.square().mean().backward()
    gradient = decoder.blocks[0].attention.q.weight.grad
    assert gradient is not None
    return [shown.detach(), gradient]


def usable(situation: Situation) -> list[str]:
    """The functions that can be used there."""
    functions = (choice for choice in ATTENTION.values() if isinstance(choice, AttentionFunction))
    return [function.name for function in functions if function.fits(situation)]


@pytest.mark.parametrize("model", [NGPT, Nemotron, GPT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["causal", "padding", "documents"])
def test_attention_functions_agree_with_their_gradients(
    model: type[NGPT | Nemotron | GPT], dtype: torch.dtype, kind: str
) -> None:
    torch.manual_seed(0)
    decoder = model(DIMS).cuda()
    counted, seen = torch.arange(200, device="cuda"), {}
    if kind == "padding":
        seen["attention_mask"] = (counted >= torch.tensor([[0], [9]], device="cuda")).long()
    if kind == "documents":
        seen["documents"] = torch.stack([counted // 70, counted // 130])
    known = {"padding": kind == "padding", "documents": kind == "documents", "gradients": True}
    names = usable(decoder.situation(torch.device("cuda"), dtype, 200, 200, **known))
    assert {"eager", "blocked", "sdpa", "sdpa-math", "sdpa-efficient", "flex"} <= set(names)
    if dtype == torch.bfloat16:
        assert {"causal": {"sdpa-flash", "sdpa-cudnn", "varlen"}, "documents": {"varlen"}, "padding": set()}[kind] <= set(names)
    expected = attended(decoder, "eager", torch.float32, **seen)
    for name in ("auto", *names):
        for ours, theirs in zip(attended(decoder, name, dtype, **seen), expected, strict=True):
            error = (ours - theirs).norm() / theirs.norm()
            assert error < (1e-3 if dtype == torch.float32 else 5e-2), (name, float(error))


@pytest.mark.parametrize("attention", ["auto", "flex", "varlen", "sdpa"])
def test_a_compiled_model_keeps_documents_apart_however_many_there_are(attention: str) -> None:
    torch.manual_seed(0)
    decoder = NGPT(DIMS, attention=attention).cuda()
    decoder.attend = decoder.attend.settled(
        decoder.situation(torch.device("cuda"), torch.bfloat16, 200, 200, documents=True, gradients=True, compiled=True)
    )
    alone = NGPT(DIMS, attention="sdpa").cuda()
    alone.load_state_dict(decoder.state_dict())
    torch.compiler.reset()
    graph, tokens = torch.compile(decoder, fullgraph=True), torch.randint(0, 256, (2, 200), device="cuda")
    for length in (7, 70, 200):
        documents = (torch.arange(200, device="cuda") // length).expand(2, -1)
        with torch.autocast("cuda", torch.bfloat16):
            loss = graph(tokens, tokens, documents=documents)
        loss.backward()
        parts = [alone(part) for part in tokens.split(length, dim=1)]
        exact = torch.nn.functional.cross_entropy(torch.cat(parts, dim=1).flatten(0, 1), tokens.flatten())
        torch.testing.assert_close(loss, exact, rtol=2e-2, atol=2e-2)


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


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_between_logged_rows_nothing_waits_for_the_gpu(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = CLI.instantiate_trainer

    class NoWaiting(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            step = trainer.global_step + 1  # the mode holds until the next begins, over all callbacks and the next batch
            torch.cuda.set_sync_debug_mode("error" if step > 10 and step % 10 else "default")

    def watched(self: CLI, **kwargs: object) -> Trainer:
        trainer = make(self, **kwargs)
        trainer.callbacks.insert(0, NoWaiting())
        return trainer

    monkeypatch.setattr(CLI, "instantiate_trainer", watched)
    files = ["base.yaml", f"model/{model}.yaml", "size/debug.yaml"]
    words = [word for file in files for word in ("-c", str(CONFIGS / file))] + ["--trainer.accelerator=gpu"]
    words += ["--trainer.max_steps=40", "--trainer.log_every_n_steps=10", "--trainer.val_check_interval=40"]
    words += ["--checkpoint.every_n_train_steps=40", "--telemetry.scales_every_n_steps=0", "--trainer.precision=bf16-mixed"]
    try:
        CLI(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True])
def test_the_chunked_loss_is_that_of_whole_logits_on_the_gpu(compiled: bool) -> None:
    from ngpt_lab.nn.chunked_loss import chunked_cross_entropy
    from ngpt_lab.nn.next_token import cross_entropy

    torch.manual_seed(0)
    features, matrix = torch.randn(2, 2048, 128, device="cuda"), torch.randn(32000, 128, device="cuda") * 0.1
    targets = torch.randint(32000, (2, 2048), device="cuda")
    found = {}
    for name in ("exact", "whole", "chunked"):
        leaves = [(t.double() if name == "exact" else t).detach().requires_grad_() for t in (features, matrix)]
        loss = torch.compile(chunked_cross_entropy, fullgraph=True) if compiled else chunked_cross_entropy
        with torch.autocast("cuda", torch.bfloat16, enabled=name != "exact"):
            value = loss(*leaves, targets) if name == "chunked" else cross_entropy(leaves[0] @ leaves[1].T, targets)
        value.backward()
        found[name] = [value.detach().double(), *(leaf.grad.double() for leaf in leaves)]
    errors = {
        name: [float((one - exact).norm() / exact.norm()) for one, exact in zip(found[name], found["exact"], strict=True)]
        for name in ("whole", "chunked")
    }
    assert all(ours <= 2 * theirs + 1e-6 for ours, theirs in zip(errors["chunked"], errors["whole"], strict=True))
