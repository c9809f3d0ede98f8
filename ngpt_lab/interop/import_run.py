"""A Hugging Face model folder as the folder of a run."""

import json
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from ngpt_lab.data.tokenizer_files import TOKENIZER_CONFIG, TOKENIZER_FILES
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically, writing
from ngpt_lab.interop.architectures import Architecture, architecture
from ngpt_lab.interop.hf_folder import CONFIG, GENERATION, FolderTensors, read_config, read_json
from ngpt_lab.interop.new_folder import new_folder
from ngpt_lab.interop.parts import Part
from ngpt_lab.interop.tensors import check_expected
from ngpt_lab.training.checkpoints import SafeCheckpointIO
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.run_record import flatten, source_state
from ngpt_lab.training.run_weights import LAST


def import_folder(source: Path, run: Path) -> str:
    """Write the model in a Hugging Face folder as a run's folder, and say what it is.

    The weights go from file to file, each in its own dtype: none is held in memory. Nothing stands under `run` before all of
    it is there.

    Args:
        source: holds config.json, one model.safetensors or shards with their index, and a tokenizer if any.
        run: the folder to write.

    Raises:
        InputError: what is in the folder is no model that can be imported, or `run` is in use.
    """
    with new_folder(run) as made:
        config = read_config(source)
        with told_of(source / CONFIG):
            kind = architecture(config)
        tensors = FolderTensors(source)
        with told_of(source / CONFIG):
            enough_for(config, kind, tensors)
            settings = kind.sections(config, tensors)
            model = Part(settings, "model")
        settings, module = settings | {"model": model.section}, model.built
        weights = fitted(kind, module, config, tensors, source)
        for file in texts(source):
            copy(file, made / ("." if file.name == GENERATION else "tokenizer"))
        write_atomically(made / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
        record = recorded(source, config, module, weights, settings)
        write_atomically(made / "run.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        SafeCheckpointIO().save_checkpoint({"state_dict": weights}, made / LAST)
    parameters = sum(p.numel() for p in module.parameters())
    return f"{kind.name}{kind.task(config, tensors)} with {parameters:,} parameters"


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """What is refused within is told of a file.

    Raises:
        InputError: what was.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def enough_for(config: Mapping[str, Any], kind: Architecture, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a number of layers that would take forever to build, before it is built."""
    layers = config.get("num_hidden_layers", kind.reference.defaults["num_hidden_layers"])
    if isinstance(layers, int) and layers > len(tensors):
        raise InputError(f"num_hidden_layers is {layers}, but the folder holds {len(tensors)} tensors in all")


def fitted(
    kind: Architecture, module: BackboneModule, config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path
) -> dict[str, Tensor]:
    """The module's state dict from the folder's tensors.

    Raises:
        InputError: tensors that are missing, left over, or of another shape or type.
    """
    theirs = kind.theirs(module, kind.task(config, tensors))
    parameters = dict(module.named_parameters())
    with told_of(source):
        expected = {theirs[ours]: kind.reference.shape(theirs[ours], p) for ours, p in parameters.items()}
        check_expected(kind.reference, expected, tensors)
    made = {id(p): tensors[theirs[ours]].view(p.shape) for ours, p in parameters.items()}
    return {name: made[id(p)] for name, p in every_name(module)}


def every_name(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The module's parameters, a shared one under each of its names, as a state dict has them."""
    return module.named_parameters(remove_duplicate=False)


def texts(source: Path) -> Iterator[Path]:
    """The files of a folder that are copied.

    Raises:
        InputError: one of them is to be JSON, and is not.
    """
    for name in (*TOKENIZER_FILES, GENERATION):
        if (source / name).is_file():
            if name.endswith(".json"):
                read_json(source / name)
            yield source / name


def copy(file: Path, folder: Path) -> None:
    """Copy a file's content into a folder; of a tokenizer's config, without what names code that stays behind."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / file.name)
    if file.name == TOKENIZER_CONFIG and (said := read_json(file)).pop("auto_map", None) is not None:
        # The class may be one of that code; tokenizer.json says all that the general one needs.
        plain = {**said, "tokenizer_class": "PreTrainedTokenizerFast"}
        write_atomically(folder / file.name, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def recorded(
    source: Path, config: dict[str, Any], module: BackboneModule, weights: Mapping[str, Tensor], settings: dict[str, Any]
) -> dict[str, Any]:
    """What run.json says: what was imported, where it came from, and with what."""
    decoder = module.backbone
    entries = Counter(str(weights[name].dtype).removeprefix("torch.") for name, _ in module.named_parameters())
    return {
        "status": "imported",
        "error": None,
        "source": {"folder": str(source.resolve()), "config": config},
        **source_state(),
        "versions": {name: version(name) for name in ("torch", "safetensors", "ngpt-lab")}
        | {"python": platform.python_version()},
        "model": {
            "class": type(decoder).__name__,
            "parameters": sum(p.numel() for p in decoder.parameters()),
            "parametrisation": None,
            "tensors": dict(entries),
        },
        "settings": flatten(settings),
    }
