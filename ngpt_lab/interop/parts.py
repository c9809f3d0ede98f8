"""Parts of a run, built from its config alone: its model can be looked at where its text is not."""

from collections.abc import Mapping
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule

import ngpt_lab.models.ablations.scaled_qk
import ngpt_lab.models.ablations.value_residual  # noqa: F401  (imported parts can be named by class alone)
from ngpt_lab.errors import InputError
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.parser import Parser, one_sentence, told_by

SLOTS: dict[str, type] = {"model": BackboneModule, "data": LightningDataModule}


class Part:
    """A section of a run's config, and what it stands for.

    Args:
        recorded: the run's config.
        name: model or data.

    Attributes:
        built: what it stands for; a model has no memory for its parameters yet.

    Raises:
        InputError: there is no such section, or it builds nothing.
    """

    def __init__(self, recorded: Mapping[str, Any], name: str) -> None:
        self.name = name
        self._parser = Parser(add_help=False)
        self._parser.add_subclass_arguments(SLOTS[name], name)
        if name not in recorded:
            raise InputError(f"the config has no {name}: give one of a run")
        try:
            self._parsed = self._parser.parse_object({name: recorded[name]})
            with torch.device("meta"):
                self.built = self._parser.instantiate_classes(self._parsed)[name]
        except ModuleNotFoundError as error:
            raise InputError(f"the config asks for a package that is not installed: {one_sentence(str(error))}") from error
        except ValueError as error:
            raise told_by(error) or error from None

    @property
    def section(self) -> dict[str, Any]:
        """The section with every default."""
        whole: dict[str, Any] = yaml.safe_load(self._parser.dump(self._parsed, skip_none=False))[self.name]
        return whole
