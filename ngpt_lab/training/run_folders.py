"""Where a run goes, and what it goes on from."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import FOLDER
from ngpt_lab.training.guard import FILE as INCIDENTS
from ngpt_lab.training.resume import Origin, newest, origin, recorded

# `last` must find a run to go on with; `auto` starts one where there is none.
OF_THE_FOLDER = ("last", "auto")
WRITTEN_BY_A_RUN = {"config.yaml", "run.json", "metrics.jsonl", INCIDENTS, FOLDER, "scales", "tensorboard", "wandb"}


class AlreadyFinished(Exception):  # noqa: N818  (no error: there is nothing to do)
    """The run that was to go on has taken all its steps."""


def run_folder(config: Namespace) -> Path:
    """Where a run goes: a fresh folder, or the one it continues in.

    Raises:
        InputError: the folder is in use.
    """
    named, asked = config.trainer.default_root_dir, config.ckpt_path
    if named is None:
        if config.trainer.devices not in (1, "1"):
            raise InputError("a run on several devices needs a folder they all know: name one with --trainer.default_root_dir")
        if asked in OF_THE_FOLDER:
            raise InputError(f"ckpt_path is {asked!r}, but of which run: name its folder with --trainer.default_root_dir")
        backbone = config.model.init_args.backbone.class_path.rsplit(".", 1)[-1].lower()
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{backbone}"
    folder = Path(named)
    continues = asked == "last" or (asked and folder.absolute() in Path(asked).absolute().parents)
    mine = continues or (asked == "auto" and not list(foreign(folder)))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not mine):
        raise InputError(
            f"{folder} is in use: choose another --trainer.default_root_dir, or continue the run in it with --ckpt_path last"
        )
    return folder


def foreign(folder: Path) -> Iterator[Path]:
    """What in a folder no run wrote."""
    if (folder / "config.yaml").is_file() and (folder / "run.json").is_file():
        return
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in WRITTEN_BY_A_RUN and not path.match(".*.tmp") and not path.match("config.resume-*.yaml"):
            yield path


def run_origin(asked: str | None, folder: Path) -> Origin | None:
    """The checkpoint a run starts from: the newest sound one of the run in `folder`, or the one that is named.

    Raises:
        InputError: there is none, or it is broken.
    """
    if asked is None:
        return None
    if asked not in OF_THE_FOLDER:
        return origin(Path(asked))
    found = newest(folder)
    if found is None and asked == "last":
        raise InputError(f"there is no checkpoint in {folder / FOLDER} to continue from")
    return found


def refuse_to_repeat(folder: Path, found: Origin, max_steps: int) -> None:
    """See that a run that is gone on with has steps to take.

    Raises:
        AlreadyFinished: it has taken them all, and was evaluated.
        InputError: it has taken more.
    """
    if found.step > max_steps > 0:
        raise InputError(f"{found.path} is of step {found.step}, beyond trainer.max_steps {max_steps}: raise trainer.max_steps")
    if (
        found.path.absolute().parent.parent == folder.absolute()
        and found.step == max_steps
        and recorded(folder).get("status") == "finished"
    ):
        raise AlreadyFinished(f"{folder} is finished, with all its {max_steps} steps: raise trainer.max_steps to train on")


@rank_zero_only
def clear(folder: Path) -> None:
    """Take away what an attempt left that did not come to a checkpoint.

    Raises:
        InputError: the run had come further.
    """
    if recorded(folder).get("status") == "finished":
        raise InputError(f"{folder} holds a finished run without its checkpoints: choose another --trainer.default_root_dir")
    if folder.is_dir() and any(folder.iterdir()):
        shutil.rmtree(folder)


@rank_zero_only
def remove(folder: Path) -> None:
    """Take away the folder of a run that was refused before its first row."""
    if not (folder / "metrics.jsonl").exists():
        shutil.rmtree(folder, ignore_errors=True)
