"""The model of a run as a Hugging Face model folder."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ngpt_lab.data.encoders import TOKENIZER_JSON
from ngpt_lab.data.tokenizer_files import (
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    read_tokenizer_folder,
    special_token,
)
from ngpt_lab.files import write_atomically, writing
from ngpt_lab.interop.architectures import ARCHITECTURES
from ngpt_lab.interop.export import EXPORTERS
from ngpt_lab.interop.exported_task import any_head, ending, head_config, original_config
from ngpt_lab.interop.hf_folder import CONFIG, GENERATION, read_json
from ngpt_lab.interop.model_card import model_card
from ngpt_lab.interop.new_folder import new_folder
from ngpt_lab.interop.remote_code import AUTO_MAP, MODULE, remote_code
from ngpt_lab.interop.run_tokenizer import TOKENIZER, remake_tokenizer
from ngpt_lab.interop.target import Target
from ngpt_lab.interop.trained import Trained, convert, load_trained
from ngpt_lab.interop.weight_files import SHARD_SIZE, check_shard_size, write_weight_files
from ngpt_lab.models import Decoder
from ngpt_lab.nn.scale import Scale
from ngpt_lab.training.resume import recorded


class Folder(NamedTuple):
    """What was written.

    Args:
        architecture: the name of the class.
        entries: of all parameters.
        files: those of tensors.
        tokenizer: whether there is one.
    """

    architecture: str
    entries: int
    files: list[str]
    tokenizer: bool


def export_run(checkpoint: Path, folder: Path, dtype: torch.dtype | None = None, shard_size: str = SHARD_SIZE) -> Folder:
    """Write a run's model as a folder that Hugging Face's classes load; nothing stands under `folder` before all is there.

    Args:
        checkpoint: a run's folder, or one of its checkpoints.
        folder: where it goes.
        dtype: of the weights; each keeps its own where it is left out.
        shard_size: of the largest file of weights.

    Raises:
        InputError: a decoder that the class cannot hold, by name; or `folder` is in use or cannot be written.
    """
    check_shard_size(shard_size)
    with new_folder(folder) as made:
        trained = load_trained(checkpoint, None)
        record = recorded(trained.folder)
        config, tensors = translated(trained, record, dtype)
        tokens = keep_tokenizer(trained, made)
        config |= token_ids(tokens, record, config)
        if "auto_map" in config:
            write_atomically(made / f"{MODULE}.py", remote_code())
        if trained.head is None:
            keep_generation(trained, made, config, tokens)
        write_json(made / CONFIG, config)
        files = write_weight_files(tensors, made, shard_size)
        write_atomically(made / "README.md", model_card(trained, record, config, tensors, bool(tokens)))
        for file in files:
            sync_file(made / file)
    return Folder(config["architectures"][0], sum(t.numel() for t in tensors.values()), files, bool(tokens))


@torch.no_grad()
def translated(
    trained: Trained, record: Mapping[str, Any], dtype: torch.dtype | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of a model in Hugging Face's terms.

    Args:
        trained: each weight in its own dtype.
        record: its run's run.json.
        dtype: of the tensors; each keeps its own where it is left out.

    Raises:
        InputError: its class cannot hold the decoder, or no class the head.
    """
    decoder, head = trained.decoder, trained.head
    model_type = "ngpt" if decoder.on_sphere else "nemotron"
    kind, task = ARCHITECTURES[model_type], ending(head)
    if dtype is not None:
        widen_scales(decoder)
    with any_head(decoder):
        exported = EXPORTERS[kind.reference.kind](Target(kind.reference.kind, decoder))
    base = f"{kind.prefixes.get(task, 'model')}."
    tensors = {
        base + name.removeprefix("model.") if name.startswith("model.") else name: tensor
        for name, tensor in exported.state_dict.items()
        if not tensor.is_meta
    }
    tensors |= {} if head is None else {name: tensor.detach() for name, tensor in head.named_parameters()}
    tensors = {name: convert(name, tensor, dtype) for name, tensor in tensors.items()}
    config = {
        **exported.config,
        "architectures": [kind.name + task],
        "dtype": str(dtype or decoder.embedding.weight.dtype).removeprefix("torch."),
        **longest(record),
        **head_config(head, trained.settings, record),
    }
    return config | ({"auto_map": AUTO_MAP} if decoder.on_sphere else {}), tensors


def widen_scales(decoder: Decoder) -> None:
    """Hold scales in float32 at least: what is stored anew is then rounded once, to the dtype that is written."""
    for part in decoder.modules():
        if isinstance(part, Scale):
            part.stored.data = part.stored.data.to(torch.promote_types(part.stored.dtype, torch.float32))


def longest(record: Mapping[str, Any]) -> dict[str, int]:
    """How many positions the model was trained on, where that is known."""
    known = (record.get("data") or {}).get("seq_len") or original_config(record).get("max_position_embeddings")
    return {"max_position_embeddings": known} if isinstance(known, int) else {}


def keep_tokenizer(trained: Trained, folder: Path) -> dict[str, int]:
    """Put the run's tokenizer into a folder, and return the ids of its special tokens; empty where it has none."""
    kept = trained.folder / TOKENIZER
    for name in TOKENIZER_FILES:
        if (kept / name).is_file():
            with writing(folder / name):
                shutil.copyfile(kept / name, folder / name)
    if not kept.is_dir() and not remake_tokenizer(trained.folder, folder):
        return {}
    if trained.head is not None and (folder / TOKENIZER_CONFIG).is_file():
        # Positions count from the left edge where nothing else is said, and were trained to count from the first token.
        write_json(folder / TOKENIZER_CONFIG, {**read_json(folder / TOKENIZER_CONFIG), "padding_side": "right"})
    if not (folder / TOKENIZER_JSON).is_file():
        return {}
    tokenizer = read_tokenizer_folder(folder)
    ids = {role: tokenizer.id_of(special_token(folder, role)) for role in ("bos_token", "eos_token", "pad_token")}
    return {role: number for role, number in ids.items() if number is not None}


def token_ids(tokens: Mapping[str, int], record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of special tokens.

    A language model names no padding: the row of such a token in the embedding would have no gradient, and a batch's mask tells
    its padding. A task's head finds the end of a text by it.
    """
    original = original_config(record)
    ids = {f"{role}_id": original.get(f"{role}_id", tokens.get(role)) for role in ("bos_token", "eos_token")}
    pad = config["pad_token_id"]
    if pad is None:
        of_task = not config["architectures"][0].endswith("ForCausalLM")
        pad = original.get("pad_token_id", tokens.get("pad_token") if of_task else None)
    return {**ids, "pad_token_id": pad}


def keep_generation(trained: Trained, folder: Path, config: Mapping[str, Any], tokens: Mapping[str, int]) -> None:
    """Put the generation config of the folder that was imported into another, or one that knows the special tokens."""
    if (trained.folder / GENERATION).is_file():
        write_json(folder / GENERATION, read_json(trained.folder / GENERATION))
        return
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    pad = tokens.get("pad_token") if ids["pad_token_id"] is None else ids["pad_token_id"]
    write_json(
        folder / GENERATION, {name: number for name, number in {**ids, "pad_token_id": pad}.items() if number is not None}
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def sync_file(path: Path) -> None:
    """Make a file last through a loss of power."""
    with writing(path), path.open("r+b") as file:
        os.fsync(file.fileno())
