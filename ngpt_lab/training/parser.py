"""The parser of fit, validate, test and predict, whose errors are one sentence."""

import os
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from ngpt_lab import data
from ngpt_lab.errors import InputError

# jsonargparse 4.49 and later warn about calls that lightning itself makes.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# What is loaded can be named by class alone.
PARTS = [getattr(data, name) for name in data.__all__]


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence; keys are written in full, since some are read before there is a parser."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the input.

        Raises:
            InputError: always.
        """
        raise told_by(ex) or InputError(one_sentence(message)) from ex


def told_by(error: BaseException | None) -> InputError | None:
    """The bad input behind an error: jsonargparse wraps what a constructor raises."""
    seen: set[int] = set()  # an error that is raised again can come to be behind itself
    while error is not None and not isinstance(error, InputError):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error


def one_sentence(message: str) -> str:
    """The part of jsonargparse's nested report that says what is wrong."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = keys[-1] if keys else "the config"
    if found := re.search(r"Expected '([^']+)' to be a subclass of <class '([^']+)'>", message):
        return f"{where}: {found[1]} does not fit there: name a subclass of {found[2]}"
    if found := re.search(r"does not correspond to a subclass of (\w+)(?:.*Given value: (\S+))?", message, re.DOTALL):
        return f"{where}: {found[2] or 'what is named'} does not fit there: name a subclass of {found[1]}"
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
