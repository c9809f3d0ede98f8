"""fit, validate, test and predict: LightningCLI, with run folders that are never overwritten."""

import logging
import os
import re
import shutil
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache
from rich.console import Console
from rich.table import Table

import ngpt_lab.data
import ngpt_lab.models.ablations.scaled_qk
import ngpt_lab.models.ablations.value_residual  # noqa: F401  (imported parts can be named by class alone)
from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import RunCheckpoints, SafeCheckpointIO
from ngpt_lab.training.composition import check_ablations
from ngpt_lab.training.metrics_file import MetricsFile
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.predictions import PredictionsFile
from ngpt_lab.training.progress import Progress
from ngpt_lab.training.run_record import RunRecord, flatten
from ngpt_lab.training.telemetry import Telemetry

# jsonargparse 4.49 and later warn about calls that lightning itself makes.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# A run never waits for, or talks to, a server it was not asked to.
os.environ.setdefault("WANDB_MODE", "offline")
# lightning 2.6 with torch 2.12 and later, once a process; nothing a user could do about it.
warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*is deprecated")
# A run's folder may have been moved: its checkpoints are found in it.
warnings.filterwarnings("ignore", message="The dirpath has changed")
# lightning advertises another logger at every start.
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.getMessage())


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the input.

        Raises:
            InputError: always.
        """
        raise told_by(ex) or InputError(one_sentence(message)) from ex


def told_by(error: BaseException | None) -> InputError | None:
    """The bad input behind an error: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def one_sentence(message: str) -> str:
    """The part of jsonargparse's nested report that says what is wrong."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = keys[-1] if keys else "the config"
    if found := re.search(r"Expected '([^']+)' to be a subclass of <class '([^']+)'>", message):
        return f"{where}: {found[1]} does not fit there: name a subclass of {found[2]}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return (
            f"{where}: {found[1]} is not known: name a class or function by its full path, as in ngpt_lab.nn.plain.UngatedMLP"
        )
    told = [line.strip(" -") for line in message.splitlines() if line.strip()]
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Expected a <class 'NoneType'>",
        "Expected a path but",
        "Given value",
        "Problem with given",
    )
    kept = [line for line in told if not line.startswith(noise)]
    return re.sub(r"\s+", " ", " ".join(kept or told))[:600]


class CLI(LightningCLI):
    """The command line of one run, which it carries out when it is made.

    Args:
        args: the subcommand and its arguments.
        final_splits: what is evaluated after the last step: val, or val and test.
        extra: more entries for run.json.
    """

    folder: Path
    record: RunRecord
    fresh = False

    def __init__(self, args: list[str], final_splits: tuple[str, ...] = ("val",), extra: dict[str, Any] | None = None) -> None:
        self.final_splits, self.extra = final_splits, extra or {}
        check_ablations(args)
        try:
            super().__init__(
                BackboneModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                seed_everything_default=0,
                parser_class=Parser,
                args=args,
            )
        except MisconfigurationException as error:
            raise InputError(one_sentence(str(error))) from error
        except ModuleNotFoundError as error:
            raise InputError(f"the config asks for a package that is not installed: {one_sentence(str(error))}") from error
        except ValueError as error:
            self.clean_up()
            raise told_by(error) or error from None

    def clean_up(self) -> None:
        """Take away the folder of a run that was refused before its first row, if it is this run that made it."""
        if self.fresh and not (self.folder / "metrics.jsonl").exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """See `LightningCLI`, whose own warns of arguments in sys.argv that are not for it."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Our checkpoints hold no hyperparameters: the config is the run's config.yaml."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The callbacks that every run has, each under a key of its own so that a config file can set it."""
        parser.add_lightning_class_args(NormalizeWeights, "normalize_weights")
        parser.add_lightning_class_args(Telemetry, "telemetry")
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")
        parser.set_defaults({"normalize_weights.every_n_steps": None, "checkpoint.save_last": True, "checkpoint.save_top_k": 1})
        # A file called last.ckpt is the last one; Lightning would put a newer one beside it as last-v1.ckpt.
        parser.set_defaults({"checkpoint.enable_version_counter": False})

    def before_instantiate_classes(self) -> None:
        """Settle the run's folder and checkpoint before anything is built or written."""
        config = self.config[self.subcommand]
        # A recorded config says what to train, not where, so that it can be used again as it is.
        anywhere = config.clone()
        anywhere.trainer.default_root_dir = anywhere.ckpt_path = None
        self.config_text = self._parser(self.subcommand).dump(anywhere, skip_none=False)
        if self.subcommand == "fit":
            self.folder = run_folder(config)
            self.fresh = not self.folder.exists()
        else:
            self.folder = Path(config.trainer.default_root_dir or ".")
            if config.ckpt_path is None:
                raise InputError(f"{self.subcommand} needs trained weights: name a checkpoint with --ckpt_path")
        config.ckpt_path = checkpoint_path(config.ckpt_path, self.folder)
        config.trainer.default_root_dir = str(self.folder)
        for logger in as_list(config.trainer.logger):
            if isinstance(logger, Namespace) and logger.get("init_args.save_dir") in (None, "."):
                logger["init_args.save_dir"] = str(self.folder)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that writes into the run's folder, and nowhere else."""
        config = self._get(self.config_init, "trainer")
        fitting = self.subcommand == "fit"
        kwargs["plugins"] = [SafeCheckpointIO(), *as_list(config["plugins"])]
        kwargs["logger"] = run_loggers(config["logger"], self.folder) if fitting else False
        kwargs["callbacks"] = as_list(config["callbacks"])
        if config["enable_progress_bar"] is not False:
            kwargs["callbacks"].append(Progress())
        if fitting:
            settings = flatten(yaml.safe_load(self.config_text))
            self.record = RunRecord(self.folder, self.config_text, settings, self.extra)
            kwargs["callbacks"].append(self.record)
        if self.subcommand == "predict":
            kwargs["callbacks"].append(PredictionsFile(self.folder))
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise InputError(f"trainer (accelerator {config['accelerator']}): {one_sentence(str(error))}") from error

    def after_fit(self) -> None:
        """Evaluate the final weights, where the run has not just done so, and call the run finished."""
        if self.model.validated_at != self.trainer.global_step:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if "test" in self.final_splits:
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        self.record.finish(self.trainer, self.model.evaluated)

    def after_validate(self) -> None:
        """Say what came out."""
        self._print_evaluation()

    def after_test(self) -> None:
        """Say what came out."""
        self._print_evaluation()

    def _print_evaluation(self) -> None:
        table = Table("metric", "value")
        for name, value in self.model.evaluated.items():
            table.add_row(name, f"{value:.6g}")
        Console().print(table)


class DryCLI(CLI):
    """Parses the arguments of `fit` and builds nothing but the data module and the model; trains nothing.

    Args:
        args: the arguments of `fit`.
        on: the device type to build the model on; `meta` takes no memory.
    """

    model: BackboneModule
    normalize_weights: NormalizeWeights
    settings: dict[str, Any]

    def __init__(self, args: list[str], on: str = "meta") -> None:
        self.on = on
        super().__init__(["fit", *args])

    def before_instantiate_classes(self) -> None:
        """Keep the config; no folder is touched."""
        self.settings = flatten(yaml.safe_load(self._parser("fit").dump(self.config.fit, skip_none=False)))

    def instantiate_classes(self) -> None:
        """Build the model on its device, and the data module."""
        with torch.device(self.on):
            built = self.parser.instantiate_classes(self.config).fit
        self.model, self.datamodule, self.normalize_weights = built.model, built.data, built.normalize_weights

    def _set_seed(self) -> None:
        """The process's random state stays as it is."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing to run."""

    @property
    def parameters(self) -> int:
        """Entries of all parameters of the backbone."""
        return sum(p.numel() for p in self.model.backbone.parameters())


def run_folder(config: Namespace) -> Path:
    """Where a run goes: a fresh folder, or the one it continues in.

    Raises:
        InputError: the folder is in use.
    """
    named = config.trainer.default_root_dir
    if named is None:
        if config.trainer.devices not in (1, "1"):
            raise InputError("a run on several devices needs a folder they all know: name one with --trainer.default_root_dir")
        if config.ckpt_path == "last":
            raise InputError("ckpt_path is 'last', but of which run: name its folder with --trainer.default_root_dir")
        backbone = config.model.init_args.backbone.class_path.rsplit(".", 1)[-1].lower()
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{backbone}"
    folder = Path(named)
    continues = config.ckpt_path == "last" or (config.ckpt_path and folder in Path(config.ckpt_path).parents)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not continues):
        raise InputError(
            f"{folder} is in use: choose another --trainer.default_root_dir, or continue the run in it with --ckpt_path last"
        )
    return folder


def checkpoint_path(asked: str | None, folder: Path) -> str | None:
    """The checkpoint a run starts from; `last` is the newest of the run in `folder`.

    Raises:
        InputError: there is none.
    """
    if asked is None:
        return None
    path = folder / "checkpoints" / "last.ckpt" if asked == "last" else Path(asked)
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}" + (" to continue from" if asked == "last" else ""))
    return str(path)


def run_loggers(asked: Any, folder: Path) -> list[Logger]:
    """metrics.jsonl always, TensorBoard where it is installed, and what the config asks for."""
    loggers: list[Logger] = [MetricsFile(folder)]
    if RequirementCache("tensorboard") and asked is not False:
        loggers.append(TensorBoardLogger(str(folder), name="", version="tensorboard"))
    return loggers + [logger for logger in as_list(asked) if isinstance(logger, Logger)]


def as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, several, or nothing."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
