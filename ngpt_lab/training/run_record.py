"""What a run leaves behind besides its metrics: config.yaml, run.json and its tokenizer."""

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from ngpt_lab.data.encoders import Encoder
from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.data.tokenizer_files import write_store_tokenizer, write_tokenizer
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.interruption import Interrupted
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.training.guard import incidents
from ngpt_lab.training.metrics_file import MetricsFile
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.resume import Origin, recorded
from ngpt_lab.training.telemetry import named_scales

TOKENIZER = "tokenizer"


class RunRecord(Callback):
    """Writes config.yaml and the tokenizer once, and run.json when the run starts, ends or fails.

    Args:
        folder: the run's folder.
        config: the whole parsed config, as YAML.
        settings: the same as flat dotted keys.
        extra: more entries for run.json.
        goes_on_from: the checkpoint it goes on from; None for a run from the start.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        settings: dict[str, Any],
        extra: dict[str, Any] | None = None,
        goes_on_from: Origin | None = None,
    ) -> None:
        self.folder, self.config, self.origin = folder, config, goes_on_from
        self._record: dict[str, Any] = {"settings": settings, **(extra or {}), "error": None}
        self._begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: BackboneModule) -> None:
        """Record what is about to be trained."""
        self._record |= {
            "status": "running",
            "seed": self._record["settings"].get("seed_everything"),
            **source_state(),
            "versions": {name: version(name) for name in ("torch", "lightning", "ngpt-lab")}
            | {"python": platform.python_version()},
            "device": device(trainer),
            "data": trainer.datamodule.describe(),  # type: ignore[attr-defined]
            "model": describe_model(pl_module, int(trainer.datamodule.seq_len)),  # type: ignore[attr-defined]
            "tokens_per_step": pl_module.tokens_per_step,
            "steps": trainer.max_steps,
            "resumed": self._resumptions(),
        }
        if self.origin is None:
            self.begin(trainer)

    def begin(self, trainer: Trainer) -> None:
        """Write it, now that nothing refuses the run: what it goes on from keeps its record until then."""
        self._begun = True
        if trainer.is_global_zero:
            self._keep_config()
            if not (self.folder / TOKENIZER).exists():
                keep_tokenizer(trainer.datamodule, self.folder / TOKENIZER)  # type: ignore[attr-defined]
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: BackboneModule, exception: BaseException) -> None:
        """Record why it ended."""
        if not self._begun:
            return
        if isinstance(exception, Interrupted | KeyboardInterrupt):
            self._record |= {"status": "interrupted"}
        else:
            kind = "" if isinstance(exception, InputError) else f"{type(exception).__name__}: "
            self._record |= {"status": "failed", "error": f"{kind}{exception}"}
        with suppress(InputError, OSError):  # as where the disk is full, which is what is told
            self._write(trainer)

    def finish(self, trainer: Trainer, final: dict[str, float]) -> None:
        """Record the last metrics; from here on a run that took all its steps counts as finished.

        Raises:
            InputError: the run ended with a loss that is not finite; the record says failed.
        """
        self._record |= {"status": "finished" if trainer.global_step == trainer.max_steps else "stopped"}
        self._record["final"] = {name: value if math.isfinite(value) else None for name, value in final.items()}
        broken = None in self._record["final"].values()
        if broken:
            self._record |= {"status": "failed", "error": "the loss is not finite"}
        self._write(trainer)
        if broken:
            raise InputError(f"{self.folder}: the loss is not finite at the end: lower the learning rate")

    def _keep_config(self) -> None:
        """config.yaml stays what the run began with; what it goes on with, where that differs, lies beside it."""
        if not (self.folder / "config.yaml").exists():
            write_atomically(self.folder / "config.yaml", self.config)
        elif self.origin is not None and self.origin.changed:
            taken = len(list(self.folder.glob("config.resume-*.yaml")))
            write_atomically(self.folder / f"config.resume-{taken + 1}.yaml", self.config)

    def _resumptions(self) -> list[dict[str, Any]]:
        """Every time that the run went on from a checkpoint, this one included."""
        if self.origin is None:
            return []
        before = recorded(self.folder).get("resumed", [])
        now = {"step": self.origin.step, "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "changed": self.origin.changed}
        return [*before, now]

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        self._record["tokens"] = trainer.global_step * self._record["tokens_per_step"]
        self._record["incidents"] = incidents(self.folder)
        clocks = [logger.seconds for logger in trainer.loggers if isinstance(logger, MetricsFile)]
        self._record["wall_time_s"] = clocks[0]
        write_atomically(self.folder / "run.json", json.dumps(self._record, indent=1, allow_nan=False) + "\n")


def keep_tokenizer(data: Any, folder: Path) -> None:
    """Write the tokenizer of a data module, where it has one: what is trained on its ids needs it wherever it goes."""
    encoder = getattr(data, "encoder", None)
    if isinstance(encoder, Encoder):
        write_tokenizer(encoder, folder)
    elif isinstance(data, WindowDataModule) and data.corpus.folder is not None:
        write_store_tokenizer(data.corpus.folder, folder)


def describe_model(module: BackboneModule, seq_len: int) -> dict[str, Any]:
    """What run.json says of the model; `scales` holds every scale's value at the start, where it is one number."""
    decoder = module.backbone
    return {
        "class": type(decoder).__name__,
        "parameters": sum(p.numel() for p in decoder.parameters()),
        "parametrisation": decoder.dims.parametrisation if decoder.on_sphere else None,
        "scales": {name: float(value.mean()) for name, value in named_scales(decoder)},
        "flops_per_token": flops_per_token(decoder, seq_len),
        "compile": module.compile_backbone,
        "attention": module.attention,
    }


def device(trainer: Trainer) -> dict[str, Any]:
    """What the run runs on."""
    root = trainer.strategy.root_device
    name = torch.cuda.get_device_name(root) if root.type == "cuda" else processor()
    return {
        "kind": root.type,
        "name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def source_state() -> dict[str, str | None]:
    """The commit of the source tree and what is not committed in it; both None where the package is not a repository's."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode(errors="replace")

    # An installed package may lie inside somebody else's repository.
    ours = git("ls-files", "--error-unmatch", __file__) is not None
    commit = git("rev-parse", "HEAD") if ours else None
    return {"commit": commit and commit.strip(), "diff": commit and git("diff", "HEAD")}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
