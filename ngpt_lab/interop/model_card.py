"""The README.md of an exported model: what it is, how to load it, and what its run recorded."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from torch import Tensor

from ngpt_lab.interop.exported_task import original_config
from ngpt_lab.interop.trained import Trained

Record = Mapping[str, Any]
ARCHITECTURES = {
    "ngpt": (
        "nGPT",
        "the normalized Transformer (arXiv 2410.01131): every vector of the residual stream lies on the unit sphere",
    ),
    "nemotron": (
        "Nemotron",
        "a Transformer with layer norms of gain 1 + weight and squared ReLU in its MLP (arXiv 2402.16819)",
    ),
}
# By the ending of the class: what it is, its class among the Auto classes, and the hub's name of the task.
TASKS = {
    "ForCausalLM": ("language model", "AutoModelForCausalLM", "text-generation"),
    "ForSequenceClassification": ("classifier of texts", "AutoModelForSequenceClassification", "text-classification"),
    "ForTokenClassification": ("classifier of tokens", "AutoModelForTokenClassification", "token-classification"),
    "ForQuestionAnswering": ("model that answers questions from a text", "AutoModelForQuestionAnswering", "question-answering"),
}
SIZES = {
    "num_hidden_layers": "layers",
    "hidden_size": "width of the stream",
    "intermediate_size": "width of the MLP",
    "hidden_act": "activation",
    "num_attention_heads": "attention heads",
    "num_key_value_heads": "key and value heads",
    "head_dim": "channels of a head",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "positions it is made for",
    "rope_theta": "base of the rotation",
    "partial_rotary_factor": "share of the channels that turn",
    "tie_word_embeddings": "input and output embedding tied",
}
CODE = {
    "ngpt": """\
transformers has no class of this model. Either install `ngpt-lab` and `import ngpt_lab.hf` before loading, or let transformers
run `modeling_ngpt.py` of this folder, which is those same classes in one file: read it, then pass `trust_remote_code=True`.
""",
    "nemotron": "The class is transformers' own; nothing else is needed.\n",
}
GENERATE = """\
inputs = tokenizer.encode("Once upon a time", return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(inputs, attention_mask=torch.ones_like(inputs), max_length=20)[0]))
"""


def model_card(trained: Trained, record: Record, config: Record, tensors: Mapping[str, Tensor], tokenizer: bool) -> str:
    """The card's text.

    Args:
        trained: the model.
        record: its run's run.json; empty where there is none.
        config: the config.json.
        tensors: the weights.
        tokenizer: whether there is one.
    """
    kind, ending = str(config["model_type"]), re.sub(r"^[A-Z][A-Za-z]*?(?=For)", "", config["architectures"][0])
    name, about = ARCHITECTURES[kind]
    what, auto, pipeline = TASKS[ending]
    front = {"library_name": "transformers", "pipeline_tag": pipeline, "tags": [kind, "ngpt-lab"]}
    entries = sum(tensor.numel() for tensor in tensors.values())
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {trained.label}",
        f"A {what} with {entries:,} parameters in {dtypes(tensors)}. {name} is {about}.",
        f"## Use\n\n{CODE[kind]}\n{use(kind, auto, ending == 'ForCausalLM' and tokenizer, tokenizer)}",
        *([] if tokenizer else ["The run's tokenizer is not known: the model takes ids."]),
        f"## Model\n\n{table((told, config.get(field)) for field, told in SIZES.items())}",
        section("Origin", origin(record)) or section("Training", training(trained, record)),
        section("Results", results(trained, record)),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def use(kind: str, auto: str, generates: bool, tokenizer: bool) -> str:
    """Code that loads the model."""
    flag = ", trust_remote_code=True" if kind == "ngpt" else ""
    classes = f"{auto}, AutoTokenizer" if tokenizer else auto
    placed = ', dtype=torch.bfloat16, device_map="auto"' if generates else ""
    lines = [
        *(["import torch"] if generates else []),
        f"from transformers import {classes}",
        "",
        'path = "."  # this folder, or its name on the hub',
        *([f"tokenizer = AutoTokenizer.from_pretrained(path{flag})"] if tokenizer else []),
        f"model = {auto}.from_pretrained(path{placed}{flag})",
    ]
    return "```python\n" + "\n".join(lines) + "\n" + (GENERATE if generates else "") + "```"


def dtypes(tensors: Mapping[str, Tensor]) -> str:
    """The types of the weights, the commonest first."""
    counts: dict[str, int] = {}
    for tensor in tensors.values():
        kind = str(tensor.dtype).removeprefix("torch.")
        counts[kind] = counts.get(kind, 0) + tensor.numel()
    return " and ".join(sorted(counts, key=lambda kind: -counts[kind]))


def origin(record: Record) -> Iterable[tuple[str, Any]]:
    """Where an imported model comes from."""
    if not original_config(record):
        return
    yield "imported by", versions(record, "ngpt-lab", "torch")
    yield "imported as", ", ".join(map(str, original_config(record).get("architectures") or ["unknown"]))


def training(trained: Trained, record: Record) -> Iterable[tuple[str, Any]]:
    """What was trained on what, how long, and with what."""
    data, device = record.get("data") or {}, record.get("device") or {}
    steps, per_step = steps_taken(trained, record), record.get("tokens_per_step")
    settings = trained.settings
    yield "text", data.get("source")
    yield "tokenizer", data.get("tokenizer")
    yield "positions trained on", data.get("seq_len")
    yield "steps", steps
    yield "tokens", steps * per_step if steps is not None and isinstance(per_step, int) else None
    yield "tokens a step", per_step
    yield "optimizer", last_name(settings.get("model.init_args.optimizer.class_path"))
    yield "learning rate", settings.get("model.init_args.optimizer.init_args.lr")
    yield "weight decay", settings.get("model.init_args.optimizer.init_args.weight_decay")
    yield "schedule", last_name(settings.get("model.init_args.schedule.class_path"))
    yield "pretrained", "yes" if settings.get("pretrained") else None
    yield "seed of the weights", record.get("seed")
    yield "seed of the data", data.get("seed")
    yield "precision", device.get("precision")
    yield "hardware", device.get("name")
    yield "hours", f"{record['wall_time_s'] / 3600:.2f}" if isinstance(record.get("wall_time_s"), int | float) else None
    yield "versions", versions(record, "ngpt-lab", "torch", "lightning", "python")
    commit = record.get("commit")
    yield "commit", f"{commit}, with changes of its own" if commit and record.get("diff") else commit


def results(trained: Trained, record: Record) -> Iterable[tuple[str, Any]]:
    """The metrics after the last step; nothing of a checkpoint before it."""
    if "@" in trained.label:
        return
    for name, value in (record.get("final") or {}).items():
        yield name, f"{value:.6g}" if isinstance(value, float) else value


def steps_taken(trained: Trained, record: Record) -> int | None:
    """How many steps came before the weights."""
    if found := re.search(r"@step-(\d+)$", trained.label):
        return int(found[1])
    tokens, per_step = record.get("tokens"), record.get("tokens_per_step")
    return tokens // per_step if isinstance(tokens, int) and isinstance(per_step, int) and per_step else None


def versions(record: Record, *names: str) -> str | None:
    """The versions of packages."""
    known = record.get("versions") or {}
    return ", ".join(f"{name} {known[name]}" for name in names if name in known) or None


def last_name(path: Any) -> str | None:
    """A class without its module."""
    return path.rpartition(".")[2] if isinstance(path, str) else None


def section(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """A table under a title; nothing where it has no row."""
    told = table(rows)
    return f"## {title}\n\n{told}" if told else ""


def table(rows: Iterable[tuple[str, Any]]) -> str:
    """Two columns of what is known."""
    known = [f"| {cell(name)} | {cell(value)} |" for name, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---|", *known]) if known else ""


def cell(value: Any) -> str:
    """A value as the cell of a table."""
    told = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
    shown = f"{told:,}" if isinstance(told, int) else str(told)
    return " ".join(re.sub(r"([|\\`*_<>\[\]])", r"\\\1", shown).split())
