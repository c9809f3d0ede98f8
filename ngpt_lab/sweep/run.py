"""One run that is to be carried out: where it goes, and what `fit` is told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.states import state_of
from ngpt_lab.machine import devices_named


def devices_asked(settings: Mapping[str, Any]) -> int:
    """Devices of a run, on each node; one where its settings leave it to the machine, which shares out what it has."""
    return devices_named(settings["trainer.devices"]) or 1


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run.

    Attributes:
        folder: the run's folder; its name is the run's.
        arguments: of `fit`, less the folder.
        steps: optimizer steps from start to end.
        labels: what run.json says of it beside what it was trained with; `arm` and `budget` (tokens) at least.
        environment: variables for the time it is trained, such as wandb's group and tags.
        splits: what is evaluated at the end.
        devices: of the run, on each node.
        nodes: machines that the run spreads over.
    """

    folder: Path
    arguments: tuple[str, ...]
    steps: int
    labels: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ("val", "test")
    devices: int = 1
    nodes: int = 1

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def fit_arguments(self) -> list[str]:
        """All arguments of `fit`."""
        return [*self.arguments, f"--trainer.default_root_dir={self.folder}", "--trainer.enable_progress_bar=false"]

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty where the run has none that can be read."""
        try:
            content = json.loads((self.folder / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def ranks(self) -> int:
        """Processes that train it together."""
        return self.devices * self.nodes

    @property
    def finished(self) -> bool:
        """Whether it took all its steps and has a validation loss."""
        return state_of(self.record()) == "finished"

    @property
    def failed(self) -> bool:
        """Whether it came to nothing that could be used or continued."""
        return state_of(self.record()) == "failed"
