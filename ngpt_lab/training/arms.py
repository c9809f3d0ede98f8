"""Arms: a name, and the config files that make it; and where the shipped ones lie."""

from collections.abc import Sequence
from pathlib import Path

from ngpt_lab.errors import InputError

DEFAULT_BASELINE = "nemotron"


def shipped(folder: str) -> Path:
    """The folder of shipped files called `configs` or `quickstart`: in the source tree, or in the installed package."""
    package = Path(__file__).parents[1]
    source = package.parent / {"configs": "configs", "quickstart": "experiments/quickstart"}[folder]
    return source if source.is_dir() else package / folder


def default_arms() -> dict[str, list[Path]]:
    """The default comparison: both models at the 1m size, with the settings the quickstart search chose."""
    configs, tuned = shipped("configs"), shipped("quickstart")
    return {
        name: [configs / "model" / f"{name}.yaml", configs / "size" / "1m.yaml", tuned / f"{name}.yaml"]
        for name in ("ngpt", "nemotron")
    }


def parse_arms(asked: Sequence[str]) -> dict[str, list[Path]]:
    """Arms as `name=a.yaml,b.yaml`.

    Raises:
        InputError: another form, a name given twice, or a file that is not there.
    """
    arms: dict[str, list[Path]] = {}
    for arm in asked:
        name, _, files = arm.partition("=")
        if not name.replace("-", "").replace("_", "").isalnum() or not files:
            raise InputError(f"--arm {arm!r}: give a name and its config files as name=a.yaml,b.yaml")
        if name in arms:
            raise InputError(f"--arm {name} is given twice: every arm needs a name of its own")
        arms[name] = [Path(file) for file in files.split(",")]
        for file in arms[name]:
            if not file.is_file():
                raise InputError(f"--arm {name}: there is no config file {file}")
    return arms


def arm_arguments(files: Sequence[Path]) -> list[str]:
    """The arguments of `fit` for an arm: its files, after the shipped base.yaml."""
    return [word for file in (shipped("configs") / "base.yaml", *files) for word in ("-c", str(file))]
