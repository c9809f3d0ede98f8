"""What Hugging Face's folders hold is a run afterwards, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, NemotronConfig, NemotronForCausalLM

import ngpt_lab.hf
from ngpt_lab.cli import main
from ngpt_lab.hf import NGPTConfig
from ngpt_lab.interop import export_config, export_weights, import_weights
from ngpt_lab.interop.blueprint import import_path
from ngpt_lab.interop.hf_config import ACTIVATIONS
from ngpt_lab.interop.references import REFERENCES
from ngpt_lab.interop.trained import load_trained
from ngpt_lab.models import Decoder
from ngpt_lab.nn.heads import class_loss, span_loss
from ngpt_lab.training.cli import CLI

CONFIGS = Path(__file__).parents[2] / "configs"
Write = Callable[..., Path]
LANGUAGE_MODELS = (
    "r1_ngpt_hf_a_mha",
    "r1_ngpt_hf_b_gqa_partial",
    "r1_ngpt_hf_c_mqa_silu_offsphere",
    "r3_nemotron_lm_a_mha",
    "r3_nemotron_lm_b_gqa_fullrot",
    "r3_nemotron_lm_c_mqa_hd12",
)


def imported(folder: Path, run: Path | None = None) -> Path:
    run = run or folder.parent / "run"
    main(["import", str(folder), str(run)])
    return run


def same_bits(one: Decoder, other: Decoder) -> bool:
    theirs = dict(other.named_parameters())
    ours = dict(one.named_parameters())
    return ours.keys() == theirs.keys() and all(
        torch.equal(p, theirs[name]) and p.dtype == theirs[name].dtype for name, p in ours.items()
    )


def off(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def exported(run: Path, cls: type, tokens: Tensor, **seen: Tensor) -> Any:
    """What transformers' own class says that reads the run's export."""
    main(["export", str(run), str(run.parent / "out")])
    return cls.from_pretrained(run.parent / "out", dtype=torch.float64)(tokens, **seen)


@pytest.mark.parametrize("stem", LANGUAGE_MODELS)
def test_an_imported_language_model_gives_the_reference_s_numbers(stem, golden_named, write):
    golden = golden_named(stem)
    run = imported(write(golden.below("param."), golden.config, shards=3))
    decoder = load_trained(run, dtype=None).decoder
    assert off(decoder(golden["input_ids"]), golden["logits"]) <= 1e-10
    loss = decoder(golden["input_ids"], golden.targets)
    loss.backward()
    assert off(loss, golden["loss"]) <= 1e-10
    largest = max(float(gradient.abs().max()) for gradient in golden.below("grad.").values())
    for name, p in decoder.named_parameters():
        theirs = golden[f"grad.{golden.names.theirs[name]}"].view(p.shape)
        assert (p.grad - theirs).abs().max() <= 1e-10 * max(float(theirs.abs().max()), 1e-3 * largest)
    if golden.kind == "hf-nemotron":
        theirs = exported(run, NemotronForCausalLM, golden["input_ids"])
        assert off(theirs.logits, golden["logits"]) <= 1e-10
    directly = import_weights(golden.kind, golden.below("param."), golden.config)
    assert same_bits(decoder, directly)
    assert torch.equal(decoder(golden["input_ids"]), directly(golden["input_ids"]))


SEQUENCES, TOKENS, SPANS = "r3_nemotron_seqcls_a", "r3_nemotron_tokcls_a", "r3_nemotron_qa_a"
HEADS = {SEQUENCES: "SequenceClassification", TOKENS: "TokenClassification", SPANS: "QuestionAnswering"}


@pytest.mark.parametrize(
    ("stem", "said"), [(SEQUENCES, True), (SEQUENCES, False), (TOKENS, True), (SPANS, True), (SPANS, False)]
)
def test_an_imported_task_model_gives_the_reference_s_numbers(stem, said, golden_named, write):
    golden = golden_named(stem)
    config = {**golden.config, "architectures": [f"NemotronFor{HEADS[stem]}"] if said else None}
    run = imported(write(golden.below("param."), config, shards=2))
    trained = load_trained(run, dtype=None)
    assert trained.settings["model.class_path"].endswith(f".{HEADS[stem]}")
    assert trained.decoder.lm_head is None
    tokens = golden["input_ids"]
    x = trained.decoder.features(tokens, attention_mask=golden["attention_mask"])
    if stem == SPANS:
        logits = trained.head(x)
        loss = span_loss(*logits, golden["start_positions"], golden["end_positions"])
        pairs = zip(logits, (golden["start_logits"], golden["end_logits"]), strict=True)
    else:
        scores = trained.head(x, tokens) if stem == SEQUENCES else trained.head(x)
        loss, pairs = class_loss(scores, golden["labels"]), ((scores, golden["logits"]),)
    seen = golden["attention_mask"].bool()
    for ours, theirs in pairs:
        where = seen if ours.shape[:2] == seen.shape else ...
        assert off(ours[where], theirs[where]) <= 1e-10
    if said:
        cls = getattr(transformers, f"NemotronFor{HEADS[stem]}")
        again = exported(run, cls, tokens, attention_mask=golden["attention_mask"])
        out = again.start_logits if stem == SPANS else again.logits
        where = seen if out.shape[:2] == seen.shape else ...
        assert off(out[where], golden["start_logits" if stem == SPANS else "logits"][where]) <= 1e-10
    assert off(loss, golden["loss"]) <= 1e-10
    loss.backward()
    head_grads = {f"grad.{name}": p.grad for name, p in trained.head.named_parameters()}
    embedding = "transformer.embed_tokens" if stem == SPANS else "model.embed_tokens"
    head_grads[f"grad.{embedding}.weight"] = trained.decoder.embedding.weight.grad
    pad = golden.config["pad_token_id"]
    for name, gradient in head_grads.items():
        ours = gradient.clone()
        if "embed_tokens" in name:
            ours[pad] = golden[name][pad]  # Hugging Face withholds the pad row's
        assert (ours - golden[name]).abs().max() <= 1e-10 * golden[name].abs().max().clamp_min(1e-3)


# Small models in the layout of each release: what its config.json says and leaves out, and how its tensors are stored.
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "minitron-4b": (
        {
            "architectures": ["NemotronForCausalLM"],
            "model_type": "nemotron",
            "head_dim": 16,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "hidden_size": 72,
            "intermediate_size": 216,
            "norm_eps": 1e-05,
            "partial_rotary_factor": 0.5,
            "rope_theta": 10000.0,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.32.0.dev0",
        },
        {"d_head": 16, "n_kv_heads": 2},
    ),
    "nemotron-4": (
        {
            "architectures": ["NemotronForCausalLM"],
            "model_type": "nemotron",
            "num_attention_heads": 6,
            "num_key_value_heads": 1,
            "hidden_size": 48,
            "intermediate_size": 192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            "dtype": "bfloat16",
            "transformers_version": "5.23.0",
        },
        {"d_head": 8, "n_kv_heads": 1},
    ),
    "normalized-nemotron-8b": (
        {
            "architectures": ["NGPTForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling_ngpt.NGPTForCausalLM"},
            "model_type": "ngpt",
            "num_attention_heads": 8,
            "hidden_size": 48,
            "intermediate_size": 252,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.53.3",
        },
        {"d_head": 128, "n_kv_heads": 8},
    ),
}


def stored_as_released(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights: matrices, norms and scales in bfloat16, eigen learning rates in float32."""
    kind = f"hf-{config['model_type']}"
    reference = REFERENCES[kind]["rotation"]
    skeleton = reference.skeleton(config)
    draw = torch.Generator().manual_seed(0)
    made = {}
    for ours, name in reference.names(skeleton).items():
        shape = reference.shape(name, skeleton.get_parameter(ours))
        made[name] = (torch.randn(shape, generator=draw) * 0.05).to(torch.float32 if "alpha" in name else torch.bfloat16)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_release_s_layout_comes_in_sharded_with_every_tensor_in_its_dtype(layout, write):
    config, expected = LAYOUTS[layout]
    config = {**config, "vocab_size": 61, "num_hidden_layers": 2}
    tensors = stored_as_released(config)
    run = imported(write(tensors, config, shards=4))
    trained = load_trained(run, dtype=None)
    directly = import_weights(f"hf-{config['model_type']}", tensors, config)
    assert same_bits(trained.decoder, directly)
    tokens = torch.arange(40).view(2, 20)
    assert torch.equal(trained.decoder(tokens), directly(tokens))
    dims = trained.decoder.dims
    assert {name: getattr(dims, name) for name in expected} == expected
    assert trained.decoder.rotary.theta == (1e6 if layout == "normalized-nemotron-8b" else 1e4)
    dtypes = {p.dtype for p in trained.decoder.parameters()}
    assert dtypes == ({torch.bfloat16, torch.float32} if "ngpt" in config["model_type"] else {torch.bfloat16})
    weights = sum(t.nbytes for t in tensors.values())
    assert (run / "checkpoints" / "last.ckpt").stat().st_size < weights + 100_000  # no shard comes along with its tensors
    narrow = load_trained(run, dtype=torch.float16).decoder
    assert {p.dtype for name, p in narrow.named_parameters() if "alpha" in name} <= {torch.float32}
    assert {p.dtype for name, p in narrow.named_parameters() if "alpha" not in name} == {torch.float16}
    assert {p.dtype for p in load_trained(run).decoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves_comes_in_and_goes_out_to_the_same_logits(tied, tmp_path):
    torch.manual_seed(0)
    config = NemotronConfig(
        vocab_size=61,
        hidden_size=40,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        tie_word_embeddings=tied,
        eos_token_id=7,
    )
    theirs = NemotronForCausalLM(config).eval()
    theirs.generation_config = GenerationConfig(eos_token_id=7, max_length=20)
    theirs.save_pretrained(tmp_path / "folder", max_shard_size="20KB")
    assert len(list((tmp_path / "folder").glob("model-*.safetensors"))) > 1
    run = imported(tmp_path / "folder")
    decoder = load_trained(run).decoder
    tokens = torch.arange(30).view(2, 15)
    with torch.no_grad():
        logits = theirs(tokens).logits
        torch.testing.assert_close(decoder(tokens), logits, rtol=1e-4, atol=1e-5)
    assert (decoder.lm_head.matrix.weight is decoder.embedding.weight) == tied
    assert GenerationConfig.from_pretrained(run).eos_token_id == 7
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "imported"
    assert record["source"]["config"]["eos_token_id"] == 7
    again = NemotronForCausalLM(NemotronConfig(**export_config(decoder, "hf-nemotron"))).eval()
    state_dict = export_weights(decoder, "hf-nemotron")
    again.load_state_dict({**({"lm_head.weight": state_dict["model.embed_tokens.weight"]} if tied else {}), **state_dict})
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, logits)


@torch.no_grad()
@pytest.mark.parametrize("task", HEADS.values())
def test_an_ngpt_with_a_head_that_its_class_saves_comes_in(task, tmp_path):
    sizes = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    theirs = getattr(ngpt_lab.hf, f"NGPTFor{task}")(NGPTConfig(**sizes, **heads, pad_token_id=0, num_labels=3)).eval()
    theirs.save_pretrained(tmp_path / "folder")
    trained = load_trained(imported(tmp_path / "folder"))
    tokens = torch.arange(1, 19).view(2, 9)
    x, out = trained.decoder.features(tokens), theirs(tokens)
    if task == HEADS[SPANS]:
        assert all(map(torch.equal, trained.head(x), (out.start_logits, out.end_logits)))
    else:
        assert torch.equal(trained.head(x, tokens) if task == HEADS[SEQUENCES] else trained.head(x), out.logits)


def test_a_tokenizer_comes_along_and_code_does_not(golden_named, write, monkeypatch, tmp_path, capsys):
    golden = golden_named("r3_nemotron_lm_a_mha")
    folder = write(golden.below("param."), {**golden.config, "auto_map": {"AutoConfig": "evil.Config"}})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    files = {
        "tokenizer.json": '{"version": "1.0"}',
        "tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast"}',
        "vocab.txt": "[PAD]",
        "special_tokens_map.json": '{"eos_token": "<e>"}',
        "chat_template.jinja": "{{ messages }}",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    main(["import", str(folder)])
    run = tmp_path / "runs" / "folder"
    assert capsys.readouterr().out == "runs/folder holds NemotronForCausalLM with 9,696 parameters\n"
    assert {path.name: path.read_text() for path in (run / "tokenizer").iterdir()} == files
    written = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert written == {"config.yaml", "run.json", "checkpoints/last.ckpt", *(f"tokenizer/{name}" for name in files)}
    assert not (tmp_path / "ran").exists()
    own = {"tokenizer_class": "Tok", "auto_map": {"AutoTokenizer": [None, "evil.Tok"]}, "eos_token": "<é>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    config = json.loads((imported(folder, tmp_path / "another") / "tokenizer" / "tokenizer_config.json").read_text())
    assert config == {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<é>"}


def test_an_import_is_evaluated_and_trained_with_its_own_config(write, tmp_path):
    config = {**LAYOUTS["normalized-nemotron-8b"][0], "vocab_size": 256, "num_hidden_layers": 1}
    run = imported(write(stored_as_released(config), config))
    text = tmp_path / "words.txt"
    text.write_text("the norm of a vector on the sphere is one\n" * 500)
    words = ["-c", str(CONFIGS / "base.yaml"), "-c", str(run / "config.yaml"), "--trainer.enable_progress_bar=false"]
    words += ["--data.source=TextFiles", f"--data.source.files={text}", "--data.seq_len=16", "--data.eval_windows=4"]
    words += ["--trainer.accelerator=cpu", "--data.batch_size=2"]
    cli = CLI(["validate", *words, f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"])
    decoder = load_trained(run).decoder
    with torch.no_grad():
        losses = [decoder(batch.tokens, batch.targets) for batch in cli.datamodule.val_dataloader()]
    assert cli.model.evaluated["val/loss"] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    CLI(["fit", *words, "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path / 'trained'}"])
    assert json.loads((tmp_path / "trained" / "run.json").read_text())["status"] == "finished"


def test_an_import_leaves_the_random_numbers_alone(golden_named, write):
    golden = golden_named("r3_nemotron_lm_a_mha")
    folder, before = write(golden.below("param."), golden.config), torch.get_rng_state()
    imported(folder)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_can_be_named_in_a_config(name):
    assert locate(import_path(ACTIVATIONS[name])) is ACTIVATIONS[name]
