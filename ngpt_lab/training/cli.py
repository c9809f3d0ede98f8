"""fit, validate, test and predict: LightningCLI, with run folders that are never overwritten."""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.table import Table

import ngpt_lab.models.ablations.scaled_qk
import ngpt_lab.models.ablations.value_residual  # noqa: F401  (imported parts can be named by class alone)
from ngpt_lab.errors import InputError
from ngpt_lab.interruption import Signals
from ngpt_lab.machine import keep_freed_memory
from ngpt_lab.models import Decoder
from ngpt_lab.training.changed_settings import as_text, changes
from ngpt_lab.training.checkpoints import SafeCheckpointIO
from ngpt_lab.training.composition import check_ablations
from ngpt_lab.training.guard import LossGuard
from ngpt_lab.training.loggers import as_list, run_loggers, write_errors_told_once
from ngpt_lab.training.module import BackboneModule
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.parallel.birth import on_meta
from ngpt_lab.training.parallel.launch import end_with_parent, is_distributing
from ngpt_lab.training.parallel.strategy import Sharded
from ngpt_lab.training.parser import Parser, one_sentence, told_by
from ngpt_lab.training.predictions import PredictionsFile
from ngpt_lab.training.pretrained import load_backbone, with_backbone
from ngpt_lab.training.progress import Progress
from ngpt_lab.training.resume import Continuation, Origin, weights
from ngpt_lab.training.run_checkpoints import RunCheckpoints
from ngpt_lab.training.run_folders import AlreadyFinished, clear, refuse_to_repeat, remove, run_folder, run_origin
from ngpt_lab.training.run_record import RunRecord, flatten
from ngpt_lab.training.telemetry import Telemetry

# A run never waits for, or talks to, a server it was not asked to.
os.environ.setdefault("WANDB_MODE", "offline")
# lightning 2.6 with torch 2.12 and later, once a process; nothing a user could do about it.
warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*is deprecated")
# Nor of a run on a machine of a cluster, beside its queue.
warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
# lightning advertises another logger at every start.
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.getMessage())


class CLI(LightningCLI):
    """The command line of one run, which it carries out when it is made.

    Args:
        args: the subcommand and its arguments.
        final_splits: what is evaluated after the last step: val, or val and test.
        extra: more entries for run.json.
        signals: how the process is asked to end.
    """

    folder: Path
    record: RunRecord
    settings: dict[str, Any]
    continuation: Continuation
    origin: Origin | None = None
    fresh = False

    def __init__(
        self,
        args: list[str],
        final_splits: tuple[str, ...] = ("val",),
        extra: dict[str, Any] | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.final_splits, self.extra, self.signals = final_splits, extra or {}, signals or Signals()
        check_ablations(args)
        try:
            with write_errors_told_once():
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
                    args=with_backbone(args) if args[:1] == ["fit"] else args,
                )
        except AlreadyFinished as told:
            print(told)
        except MisconfigurationException as error:
            raise InputError(one_sentence(str(error))) from error
        except ModuleNotFoundError as error:
            raise InputError(f"the config asks for a package that is not installed: {one_sentence(str(error))}") from error
        except ValueError as error:
            self.clean_up()
            raise told_by(error) or error from None
        except OSError as error:
            self.clean_up()
            where = error.filename or vars(self).get("folder", "a file")
            told_of = f"{where} cannot be read or written: {error.strerror or one_sentence(str(error))}"
            # A logger that cannot write follows what could not be written before.
            raise told_by(error) or InputError(told_of) from None

    def clean_up(self) -> None:
        """Take away the folder of a run that was refused before it left anything, if it is this run that made it."""
        trainer = vars(self).get("trainer")
        if self.fresh and not (trainer and trainer.global_step):
            remove(self.folder)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """See `LightningCLI`, whose own warns of arguments in sys.argv that are not for it."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Our checkpoints hold no hyperparameters: the config is the run's config.yaml."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The callbacks that every run has, each under a key of its own so that a config file can set it; and its beginning."""
        parser.add_argument(
            "--pretrained",
            type=str | None,
            default=None,
            help="A run's folder or checkpoint: fit begins with its backbone, whose settings come after the config files'.",
        )
        parser.add_lightning_class_args(NormalizeWeights, "normalize_weights")
        parser.add_lightning_class_args(Telemetry, "telemetry")
        parser.add_lightning_class_args(LossGuard, "guard")
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")
        parser.set_defaults({"normalize_weights.every_n_steps": None})

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        if is_distributing(self.config[self.subcommand].trainer.strategy):
            self.parser.add_instantiator(on_meta, Decoder, subclasses=True)

    def before_instantiate_classes(self) -> None:
        """Settle the run's folder and checkpoint before anything is built or written."""
        config = self.config[self.subcommand]
        # A recorded config says what to train, not where, so that it can be used again as it is.
        anywhere = config.clone()
        anywhere.trainer.default_root_dir = anywhere.ckpt_path = None
        self.config_text = self._parser(self.subcommand).dump(anywhere, skip_none=False)
        self.settings = flatten(yaml.safe_load(self.config_text))
        if self.subcommand == "fit":
            self._settle_run(config)
        else:
            self.folder = Path(config.trainer.default_root_dir or ".")
            self.origin = run_origin(config.ckpt_path, self.folder, weights)
            if self.origin is None:
                raise InputError(f"{self.subcommand} needs trained weights: name a checkpoint with --ckpt_path")
        config.ckpt_path = self.origin and str(self.origin.path)
        config.trainer.default_root_dir = str(self.folder)
        for logger in as_list(config.trainer.logger):
            if isinstance(logger, Namespace) and logger.get("init_args.save_dir") in (None, "."):
                logger["init_args.save_dir"] = str(self.folder)

    def _settle_run(self, config: Namespace) -> None:
        """Where a run goes and what it goes on from; whether its settings let it.

        Raises:
            AlreadyFinished: there is nothing left to do.
            InputError: the folder is in use, or the checkpoint is broken or of other settings.
        """
        self.folder = run_folder(config)
        self.origin = run_origin(config.ckpt_path, self.folder)
        if self.origin is None and config.ckpt_path is not None:
            clear(self.folder)
        self.fresh = not self.folder.exists()
        if self.origin is not None:
            changed = {} if self.origin.settings is None else changes(self.origin.settings, self.settings)
            self.origin = replace(self.origin, changed=changed)
            refuse_to_repeat(self.folder, self.origin, config.trainer.max_steps)
        self.signals.go_on = f"the same command with --trainer.default_root_dir={self.folder} --ckpt_path=auto goes on"

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that writes into the run's folder, and nowhere else."""
        end_with_parent()
        config = self._get(self.config_init, "trainer")
        fitting = self.subcommand == "fit"
        kwargs["plugins"] = [SafeCheckpointIO(), *as_list(config["plugins"])]
        purge_step = None if self.origin is None else self.origin.step + 1
        kwargs["logger"] = run_loggers(config["logger"], self.folder, purge_step) if fitting else False
        kwargs["callbacks"] = as_list(config["callbacks"])
        if config["enable_progress_bar"] is not False:
            kwargs["callbacks"].append(Progress())
        if fitting:
            self.record = RunRecord(self.folder, self.config_text, self.settings, self.extra, self.origin)
            self.continuation = Continuation(self.folder, as_text(self.settings), self.origin, self.record.begin)
            kwargs["callbacks"] += [self.record, self.continuation]
            self._get(self.config_init, "checkpoint").signals = self.signals
        if self.subcommand == "predict":
            kwargs["callbacks"].append(PredictionsFile(self.folder))
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            raise InputError(f"trainer (accelerator {config['accelerator']}): {one_sentence(str(error))}") from error
        if isinstance(trainer.strategy, Sharded):
            trainer.strategy.group(self._get(self.config_init, "model").backbone)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Carry it out; what goes wrong while a checkpoint is put in place is the checkpoint's fault."""
        try:
            super()._run_subcommand(subcommand)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if subcommand != "fit" or self.origin is None or self.continuation.begun or told_by(error):
                raise
            told = f"it has no {error}" if isinstance(error, KeyError) else one_sentence(str(error))
            raise InputError(f"{self.origin.path} cannot be continued from: {told}") from error

    def before_fit(self) -> None:
        """Begin with a pretrained backbone, unless the run goes on from a checkpoint of its own."""
        keep_freed_memory()
        pretrained = self.config[self.subcommand].pretrained
        if pretrained is not None and self.origin is None:
            self.model.begin = lambda: load_backbone(self.model, pretrained)

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
