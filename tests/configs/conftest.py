"""A light parser of the keys that a model and its ablations have, composed by jsonargparse's own rules."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning.pytorch import Trainer
from torch import Tensor

from ngpt_lab.data import TextDataModule, TextFiles
from ngpt_lab.training.cli import Parser
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.run_record import flatten

CONFIGS = Path(__file__).parents[2] / "configs"
KEYS = ("model", "normalize_weights")


@dataclass(frozen=True)
class Composer:
    """One model at the debug size, to lay ablation files over.

    Args:
        name: the model's file.
        parser: knows `KEYS` alone.
        base: the parsed config of the files that every run names.
        files: those files, cut to `KEYS`.
    """

    name: str
    parser: Parser
    base: Namespace
    files: list[Path]

    @classmethod
    def of(cls, model: str, folder: Path) -> "Composer":
        parser = Parser()
        parser.add_argument("-c", "--config", action=ActionConfigFile)
        parser.add_lightning_class_args(BackboneModule, "model", subclass_mode=True)
        parser.add_lightning_class_args(NormalizeWeights, "normalize_weights")
        files = [cut(CONFIGS / f"{name}.yaml", folder) for name in ("base", f"model/{model}", "size/debug")]
        return cls(model, parser, parser.parse_args([word for file in files for word in ("-c", str(file))]), files)

    def parsed(self, *ablations: Path) -> Namespace:
        """The whole command line, from the first file to the last."""
        return self.bare(self.parser.parse_args([word for file in (*self.files, *ablations) for word in ("-c", str(file))]))

    def laid_over(self, config: Namespace, ablation: Path) -> Namespace:
        """What `-c` does to the config so far: a tenth of the work of parsing a command line, with the same result."""
        composed = config.clone()
        ActionConfigFile.apply_config(self.parser, composed, "config", str(ablation))
        return self.bare(composed)

    def bare(self, config: Namespace) -> Namespace:
        """The settings, without the names of the files they come from."""
        config.pop("config")
        return config

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The settings without an ablation, by their dotted keys."""
        return flatten(self.settings(self.base))

    def settings(self, config: Namespace) -> dict[str, Any]:
        return yaml.safe_load(self.parser.dump(config, skip_none=False))

    def first_loss(self, config: Namespace, data: TextDataModule) -> Tensor:
        """Train one step on a CPU; the loss after it."""
        torch.manual_seed(0)
        built = self.parser.instantiate_classes(config)
        trainer = Trainer(
            max_steps=1,
            accelerator="cpu",
            devices=1,
            callbacks=[built.normalize_weights],
            gradient_clip_val=1.0,
            logger=False,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(built.model, datamodule=data)
        assert trainer.global_step == 1
        with torch.no_grad():
            batch = next(iter(data.train_dataloader()))
            return built.model.backbone(batch.tokens, batch.targets)


def cut(file: Path, folder: Path) -> Path:
    """A copy of a config file with `KEYS` alone."""
    kept = folder / file.name
    kept.write_text(yaml.safe_dump({key: value for key, value in yaml.safe_load(file.read_text()).items() if key in KEYS}))
    return kept


@pytest.fixture(scope="session")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Composer]:
    made: dict[str, Composer] = {}

    def of(model: str) -> Composer:
        if model not in made:
            made[model] = Composer.of(model, tmp_path_factory.mktemp(model))
        return made[model]

    return of


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text."""
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("\n".join(f"the {n}th line of a small text, {n * n} words from its end" for n in range(2000)))
    return file


@pytest.fixture(scope="session")
def data(words: Path) -> TextDataModule:
    return TextDataModule(TextFiles(str(words)), seq_len=16, batch_size=2, eval_windows=4)
