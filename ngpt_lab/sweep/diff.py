"""`ngpt-lab diff`: what differs between two runs, without loading torch."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.records import METRICS, RECORD, number, part, read_object, read_rows
from ngpt_lab.sweep.status import console

ABSENT = "(absent)"
# Sections of run.json that hold keys of their own; what is in none of them is said of the run.
SECTIONS = ("settings", "data", "model", "versions", "device")
# Two runs of the same never take the same time.
_LEFT_OUT = ("final", "commit", "diff", "wall_time_s")

Pairs = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Differences:
    """What differs between two runs.

    Attributes:
        sections: section (run, source, settings, ...) -> dotted key -> both values, ABSENT where a run has none.
        final: each final metric of both runs, whether it differs or not.
        training: one sentence on the logged training losses.
        nothing: whether the two agree in all of it.
    """

    sections: dict[str, Pairs]
    final: Pairs
    training: str
    nothing: bool


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab diff`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    found = differences(options.first, options.second)
    names = [run.resolve().name for run in (options.first, options.second)]
    if len(set(names)) == 1:
        names = [str(run) for run in (options.first, options.second)]
    out = console()
    for section, pairs in found.sections.items():
        out.print(pairs_table(section, names, pairs))
    if found.final:
        out.print(final_table(names, found.final))
    out.print(Text(found.training), soft_wrap=True)
    if found.nothing:
        out.print("nothing differs but the time they took")


def differences(first: Path, second: Path) -> Differences:
    """Compare two run folders.

    Raises:
        InputError: one of them has no record that can be read.
    """
    mine, theirs = read_run(first), read_run(second)
    ours, others = facts(first, mine), facts(second, theirs)
    sections = {name: differing(ours[name], others[name]) for name in ours}
    sections = {name: pairs for name, pairs in sections.items() if pairs}
    final = pairs_of(part(mine, "final"), part(theirs, "final"))
    training, equal = compare_training(first, second)
    nothing = not sections and equal and all(one == other for one, other in final.values())
    return Differences(sections, final, training, nothing)


def read_run(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        InputError: there is none that can be read.
    """
    record, problem = read_object(folder / RECORD)
    if problem:
        raise InputError(f"{folder} is no run that can be compared, {problem}: give two run folders")
    return record


def facts(folder: Path, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What can differ, by section, with flat keys; paths of the run's own folder count as the same."""
    rest = {key: value for key, value in record.items() if key not in (*SECTIONS, *_LEFT_OUT)}
    source = {"commit": record.get("commit"), "uncommitted changes": uncommitted(record.get("diff"))}
    own = re.compile(rf"^.*(^|/){re.escape(folder.resolve().name)}(?=/|$)")
    sections = {"run": rest, "source": source, **{name: part(record, name) for name in SECTIONS}}
    return {
        name: {
            key: own.sub("(run folder)", value) if name == "settings" and isinstance(value, str) else value
            for key, value in flat(section).items()
        }
        for name, section in sections.items()
    }


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def uncommitted(text: object) -> str:
    """The changes as a length and a number that tells two texts of the same length apart."""
    if not isinstance(text, str):
        return "not known"
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{len(text.splitlines()):,} line(s) ({mark})" if text else "none"


def pairs_of(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Pairs:
    """Both values of every key."""
    return {key: (ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in {**ours, **theirs}}


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Pairs:
    """Both values of every key in which they differ; 1, 1.0 and true are not the same setting."""
    return {key: pair for key, pair in sorted(pairs_of(ours, theirs).items()) if repr(pair[0]) != repr(pair[1])}


def compare_training(first: Path, second: Path) -> tuple[str, bool]:
    """One sentence on where the logged training losses part, and whether they never do."""
    read = [read_rows(run / METRICS) for run in (first, second)]
    problems = "".join(f"; {run}: {problem}" for run, (_, problem) in zip((first, second), read, strict=True) if problem)
    ours, theirs = ([(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] for rows, _ in read)
    if [step for step, _ in ours] != [step for step, _ in theirs]:
        lengths = " and ".join(f"{len(rows)} (to step {rows[-1][0] if rows else 0})" for rows in (ours, theirs))
        return f"the training losses are not of the same steps: {lengths} are logged{problems}", False
    for (step, one), (_, other) in zip(ours, theirs, strict=True):
        if one != other:
            return f"train/loss first differs at step {step}: {one} and {other}{problems}", False
    return f"train/loss is the same in all {len(ours)} logged rows{problems}", not problems


def pairs_table(title: str, names: list[str], pairs: Pairs) -> Table:
    """One line a key."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("", *names):
        shown.add_column(Text(name), overflow="fold")
    for key, values in pairs.items():
        # Text, because rich would take [brackets] in a value for its markup.
        shown.add_row(Text(key), *(Text(str(value)) for value in values))
    return shown


def final_table(names: list[str], final: Pairs) -> Table:
    """The last metrics side by side, and how much larger the second run's are."""
    shown = pairs_table("final", names, {})
    shown.add_column("difference", justify="right")
    for key, (one, other) in final.items():
        numbers = [number({key: value}, key) for value in (one, other)]
        apart = "" if None in numbers else f"{other - one:+.6g}"
        shown.add_row(Text(key), Text(str(one)), Text(str(other)), apart)
    return shown


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(prog="ngpt-lab diff", description="Say what differs between two runs.")
    parser.add_argument("first", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("second", type=Path, metavar="RUN", help="another")
    return parser
