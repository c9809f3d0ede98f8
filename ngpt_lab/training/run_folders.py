"""Where a run goes, and what it goes on from."""

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from ngpt_lab.data.tokenizer_files import TOKENIZER_FILES
from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import FOLDER, LAST, NAME, is_folder, step_files
from ngpt_lab.training.guard import FILE as INCIDENTS
from ngpt_lab.training.resume import Origin, newest, origin, recorded
from ngpt_lab.training.run_record import TOKENIZER

# `last` must find a run to go on with; `auto` starts one where there is none.
OF_THE_FOLDER = ("last", "auto")
# What a run writes: of a run's folder, and of those in it that hold its own files alone.
FILES = re.compile(rf"config\.yaml|config\.resume-\d+\.yaml|run\.json|metrics\.jsonl|{re.escape(INCIDENTS)}")
FOLDERS = {
    FOLDER: re.compile(rf"{NAME.pattern}|{re.escape(LAST)}|step-\d+\.consolidated\.ckpt"),
    "scales": re.compile(r"step-\d+\.safetensors"),
    TOKENIZER: re.compile("|".join(map(re.escape, TOKENIZER_FILES))),
}
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
# Of loggers, which name what they write.
VIEWS = {"tensorboard", "wandb", "lightning_logs", "mlruns"}
OF_A_CONFIG = {"model", "data", "trainer", "normalize_weights"}


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
    continues = asked in OF_THE_FOLDER or (asked and folder.absolute() in Path(asked).absolute().parents)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not continues):
        raise InputError(
            f"{folder} is in use: choose another --trainer.default_root_dir, or continue the run in it with --ckpt_path last"
        )
    if asked == "auto" and not step_files(folder):
        refuse_foreign(folder)
    return folder


def refuse_foreign(folder: Path) -> None:
    """See that a folder may be cleared for a run that starts again.

    Raises:
        InputError: it holds what no run wrote.
    """
    found = next(foreign(folder), None)
    if found is not None:
        raise InputError(
            f"{folder} is in use: it holds no checkpoint to go on from, and {found.relative_to(folder)}, which no run wrote: "
            "choose another --trainer.default_root_dir, or take it out of there"
        )


def foreign(folder: Path) -> Iterator[Path]:
    """What in a folder no run wrote."""
    if not folder.is_dir():
        return
    # The first file that a run writes is its config; before it there are views alone.
    began = is_config(folder / "config.yaml")
    for path in folder.iterdir():
        if path.is_dir() and path.name in FOLDERS:
            yield from (one for one in path.iterdir() if not (began and is_own(one, FOLDERS[path.name])))
        elif path.is_dir():
            yield from () if path.name in VIEWS else (path,)
        elif not is_own(path, FILES) or not (began or UNFINISHED.fullmatch(path.name)):
            yield path
    if (folder / "run.json").exists() and "settings" not in recorded(folder):
        yield folder / "run.json"


def is_own(path: Path, names: re.Pattern[str]) -> bool:
    """Whether a file is called like one that a run writes; what it was about to write counts."""
    checkpoint = is_folder(path) or UNFINISHED.fullmatch(path.name)
    return (checkpoint or not path.is_dir()) and (names.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)) is not None


def is_config(path: Path) -> bool:
    """Whether a file is a run's config."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.keys() >= OF_A_CONFIG


def run_origin(asked: str | None, folder: Path, read: Callable[[Path], Origin] = origin) -> Origin | None:
    """The checkpoint a run starts from: the newest sound one of the run in `folder`, or the one that is named.

    Args:
        asked: as --ckpt_path says it.
        folder: the run's.
        read: what is taken from one that is named.

    Raises:
        InputError: there is none, or it is broken.
    """
    if asked is None:
        return None
    if asked not in OF_THE_FOLDER:
        return read(Path(asked))
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
    """Take away the folder of a run that was refused, unless it holds what tells of training."""
    if not (step_files(folder) or (folder / INCIDENTS).exists() or (folder / "metrics.jsonl").exists()):
        shutil.rmtree(folder, ignore_errors=True)
