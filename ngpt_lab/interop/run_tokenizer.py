"""The tokenizer of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ngpt_lab.data.tokenizer_files import TextTokenizer, read_tokenizer_folder, write_store_tokenizer, write_tokenizer
from ngpt_lab.errors import InputError
from ngpt_lab.interop.exported_task import original_config
from ngpt_lab.interop.hf_folder import GENERATION, read_json
from ngpt_lab.training.resume import recorded
from ngpt_lab.training.run_record import TOKENIZER

__all__ = ["TOKENIZER", "remake_tokenizer", "stop_ids", "tokenizer_of"]

CONFIG = "config.yaml"
# Their ids are whatever they are, with no tokenizer named: not the bytes of a text.
OF_IDS = ("TokenStore", "NanoGPTFiles")


def tokenizer_of(run: str | Path) -> TextTokenizer | None:
    """The tokenizer of a run's folder; None where it is not known.

    Raises:
        InputError: the folder of its tokenizer is damaged.
    """
    kept = Path(run) / TOKENIZER
    if kept.is_dir():
        return read_tokenizer_folder(kept)
    with tempfile.TemporaryDirectory() as made:
        return read_tokenizer_folder(Path(made)) if remake_tokenizer(run, Path(made)) else None


def stop_ids(run: str | Path, eos: int | None) -> set[int]:
    """The ids that end a text of a run: those that its generation config names, or the config that it was imported with.

    Args:
        run: its folder.
        eos: the one of its tokenizer, for a run that has neither.

    Raises:
        InputError: the generation config is damaged, or names what is no id.
    """
    run = Path(run)
    generation = read_json(run / GENERATION) if (run / GENERATION).is_file() else {}
    for name, config in ((GENERATION, generation), ("run.json", original_config(recorded(run)))):
        named = config.get("eos_token_id")
        ids = named if isinstance(named, list) else [named]
        if named is not None and not all(type(number) is int and 0 <= number < 2**31 for number in ids):
            raise InputError(f"{run / name}: eos_token_id is {named!r}: give a token's id, or a list of ids")
        if named is not None:
            return set(ids)
    return set() if eos is None else {eos}


def remake_tokenizer(run: str | Path, folder: Path) -> bool:
    """Write the tokenizer folder of a run that has kept none, as its config names it; False where that cannot be done.

    Bytes need nothing else; another tokenizer is taken from the tokens of the run, if they are still there.
    """
    from ngpt_lab.data.encoders import ByteEncoder
    from ngpt_lab.training.composition import read_mapping

    try:
        data = read_mapping(Path(run) / CONFIG).get("data")
        if not isinstance(data, Mapping):
            return False
        if of_bytes(data):
            return write_tokenizer(ByteEncoder(), folder)
        tokens = store_of(data)
        return tokens is not None and write_store_tokenizer(tokens, folder)
    except InputError:
        return False


def of_bytes(data: Mapping[str, Any]) -> bool:
    """Whether the data section of a config says that a token is a byte."""
    settings = data.get("init_args") or {}
    sources = [settings.get(name) for name in ("source", "first", "second")]
    if not str(data.get("class_path")).endswith("TextDataModule") or any(named(source) in OF_IDS for source in sources):
        return False
    return settings.get("tokenizer") is None or named(settings["tokenizer"]) == "Bytes"


def named(part: Any) -> str | None:
    """The class that a part of a config names, without its module."""
    path = part.get("class_path") if isinstance(part, Mapping) else part
    return path.rpartition(".")[2] if isinstance(path, str) else None


def store_of(data: Mapping[str, Any]) -> Path | None:
    """The folder of the tokens that the data section of a config leads to.

    Raises:
        InputError: they are not there, or were made from something else.
    """
    from lightning.pytorch import LightningDataModule

    from ngpt_lab.data.module import WindowDataModule
    from ngpt_lab.training.parser import Parser

    parser = Parser(add_help=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    return module.corpus.folder if isinstance(module, WindowDataModule) else None
