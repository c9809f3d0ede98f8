"""A sweep specification, read from its YAML file and checked before anything is built."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from ngpt_lab.analysis.columns import CLAIM_METRIC, METRICS
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.fairness import SAME_FOR_ALL
from ngpt_lab.sweep.spec import Base, Point, Spec, Tuning
from ngpt_lab.training.arms import shipped

KEYS = (
    "extends",
    "question",
    "bases",
    "set",
    "grid",
    "seeds",
    "budgets",
    "include",
    "exclude",
    "tune",
    "compare",
    "step_cost",
    "allow_unequal",
)


# Part of the names of files and folders.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
OF_THE_SWEEP = ("seed_everything", "data.seed", "data.init_args.seed", "trainer.max_steps", "trainer.default_root_dir")
# What the runs share out among them.
ONE_FOR_ALL = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes")


def read_spec(path: Path) -> Spec:
    """Read a specification.

    Raises:
        InputError: names the file and the key that is wrong.
    """
    reader = _Reader(path)
    spec = reader.spec()
    _check_apart(reader, spec)
    return spec


class _Reader:
    """One file's keys, each error with the file's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree, self.text = _with_parent(path)

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}")

    def spec(self) -> Spec:
        self.only_known(self.tree, KEYS, "")
        bases = tuple(self.base(name, content) for name, content in self.mapping("bases", needed=True).items())
        compare = self.mapping("compare", needed=True)
        self.only_known(compare, ("baseline", "metric"), "compare.")
        metric = str(compare.get("metric", CLAIM_METRIC))
        if metric not in METRICS:
            raise self.wrong(f"compare.metric {metric!r} is not known: choose one of {', '.join(METRICS)}")
        if not isinstance(compare.get("baseline"), str):
            raise self.wrong("compare.baseline is missing: name the arm that the others are compared with")
        question = self.tree.get("question")
        if not isinstance(question, str) or not question.strip():
            raise self.wrong("question is missing: say in one line what the sweep asks")
        return Spec(
            path=self.path,
            text=self.text,
            question=question.strip(),
            bases=bases,
            settings=self.settings(self.mapping("set"), "set"),
            conditions=self.grid(self.tree.get("grid"), "grid"),
            seeds=self.seeds(self.tree.get("seeds", 3), "seeds"),
            budgets=self.integers(self.tree["budgets"], "budgets") if "budgets" in self.tree else None,
            include=self.patterns("include"),
            exclude=self.patterns("exclude"),
            tuning=self.tuning([base.name for base in bases]),
            baseline=compare["baseline"],
            metric=metric,
            step_cost=self.step_cost(),
            allow_unequal=self.yes_or_no("allow_unequal"),
        )

    def base(self, name: object, content: object) -> Base:
        where = f"bases.{name}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise self.wrong(f"{where}: a base's name is letters, digits, '-', '_', '+' and '.', a letter or digit first")
        if not isinstance(content, Mapping):
            raise self.wrong(f"{where} is not a mapping with configs, ablations and grid")
        self.only_known(content, ("configs", "ablations", "grid"), f"{where}.")
        configs = tuple(self.file(file, f"{where}.configs") for file in self.items(content.get("configs"), f"{where}.configs"))
        if not configs:
            raise self.wrong(f"{where}.configs names no config file")
        ablations: dict[str, tuple[Path, ...]] = {}
        for entry in self.items(content.get("ablations", []), f"{where}.ablations"):
            ablation, files = self.ablation(entry, f"{where}.ablations")
            if ablation in ablations:
                raise self.wrong(f"{where}.ablations names {ablation} twice")
            ablations[ablation] = files
        return Base(name, configs, ablations, self.grid(content.get("grid"), f"{where}.grid"))

    def ablation(self, entry: object, where: str) -> tuple[str, tuple[Path, ...]]:
        """One ablation as a name, a list of names, or a name with a list."""
        if isinstance(entry, Mapping) and len(entry) == 1:
            [(name, parts)] = entry.items()
        else:
            parts = entry if isinstance(entry, list) else [entry]
            name = "+".join(str(part).rpartition("/")[2].removesuffix(".yaml") for part in parts)
        parts = self.items(parts, where)
        if not parts:
            raise self.wrong(f"{where}: {name} names no ablation")
        if not NAME.fullmatch(str(name)):
            raise self.wrong(f"{where}: {name!r} is no name: letters, digits, '-', '_', '+' and '.', a letter or digit first")
        return str(name), tuple(self.ablation_file(part, where) for part in parts)

    def ablation_file(self, part: object, where: str) -> Path:
        if not isinstance(part, str):
            raise self.wrong(f"{where}: {part!r} is no name of an ablation")
        beside = self.path.parent / part
        file = beside if part.endswith(".yaml") else shipped("configs") / "ablation" / f"{part}.yaml"
        if not file.is_file():
            raise self.wrong(f"{where}: there is no ablation {part} ({file}): configs/ablation has those that are shipped")
        return file

    def file(self, name: object, where: str) -> Path:
        """A config file, beside the specification or among the shipped ones."""
        for folder in (self.path.parent, shipped("configs")):
            if isinstance(name, str) and (folder / name).is_file():
                return folder / name
        if isinstance(name, str) and name.startswith("../quickstart/"):  # in an installed package they lie elsewhere
            file = shipped("quickstart") / Path(name).name
            if file.is_file():
                return file
        raise self.wrong(
            f"{where}: there is no config file {name}, neither beside the specification nor in the shipped configs"
        )

    def grid(self, content: object, where: str) -> tuple[Point, ...]:
        """A mapping of key to values, crossed, or a list of points; without either one empty point."""
        if content is None:
            return ({},)
        if isinstance(content, Mapping):
            values = {key: self.items(some, f"{where}.{key}") for key, some in content.items()}
            if not values or not all(values.values()):
                raise self.wrong(f"{where} is empty: give every key at least one value, or leave it out")
            points: list[Mapping[Any, Any]] = [dict(zip(values, some, strict=True)) for some in product(*values.values())]
        else:
            points = self.items(content, where)
            if not points or not all(isinstance(point, Mapping) and point for point in points):
                raise self.wrong(f"{where} is empty: give a mapping of key to values, or a list of mappings of key to value")
        for place, point in enumerate(points):
            if point in points[:place]:
                raise self.wrong(f"{where} has the point {dict(point)} twice")
        return tuple(self.settings(point, where) for point in points)

    def settings(self, content: Mapping[Any, Any], where: str) -> Point:
        for key, value in content.items():
            if not isinstance(key, str) or not key:
                raise self.wrong(f"{where}: {key!r} is no dotted key of fit")
            if isinstance(value, Mapping):
                raise self.wrong(f"{where}.{key} is a mapping: write dotted keys down to the value")
            if key in OF_THE_SWEEP:
                raise self.wrong(f"{where} sets {key}, which the sweep sets itself: use seeds, budgets or --out")
            if where != "set" and key.startswith(ONE_FOR_ALL):
                raise self.wrong(f"{where} varies {key}, which is one for all runs: put it under set")
        return dict(content)

    def tuning(self, bases: Sequence[str]) -> Tuning | None:
        if "tune" not in self.tree:
            return None
        content = self.mapping("tune")
        self.only_known(content, ("seeds", "grid", "grids", "by"), "tune.")
        by = content.get("by", "arm")
        if by not in ("arm", "base"):
            raise self.wrong(f"tune.by is {by!r}: choose arm or base")
        if ("grid" in content) == ("grids" in content):
            raise self.wrong("tune needs either grid, for all bases, or grids, one for each base")
        grids = content.get("grids", dict.fromkeys(bases, content.get("grid")))
        if not isinstance(grids, Mapping) or set(grids) != set(bases):
            raise self.wrong(f"tune.grids needs one grid for each of {', '.join(bases)}")
        points = {name: self.grid(grids[name] or {}, f"tune.grids.{name}") for name in bases}
        counts = {name: len(some) for name, some in points.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise self.wrong(f"tune.grids gives the bases different numbers of trials ({told}): every arm gets the same")
        tuning = Tuning(self.seeds(content.get("seeds", [101]), "tune.seeds"), points, by)
        if shared := set(tuning.seeds) & set(self.seeds(self.tree.get("seeds", 3), "seeds")):
            raise self.wrong(f"tune.seeds and seeds share {min(shared)}: settings are chosen on seeds that are not used again")
        return tuning

    def patterns(self, key: str) -> tuple[Mapping[str, tuple[Any, ...]], ...]:
        patterns = self.items(self.tree.get(key, []), key)
        for pattern in patterns:
            if not isinstance(pattern, Mapping) or not pattern:
                raise self.wrong(f"{key}: {pattern!r} is no mapping of a field (base, ablation, arm, seed, budget, a grid key)")
        return tuple(
            {str(field): tuple(some) if isinstance(some, list) else (some,) for field, some in pattern.items()}
            for pattern in patterns
        )

    def step_cost(self) -> int:
        rounds = self.tree.get("step_cost", 0)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0 or rounds == 1:
            raise self.wrong(f"step_cost is {rounds!r}: give the rounds of the measurement, 2 or more, or 0 for none")
        return rounds

    def seeds(self, content: object, where: str) -> tuple[int, ...]:
        """A list, or how many counted from 1."""
        if isinstance(content, int) and not isinstance(content, bool) and content > 0:
            return tuple(range(1, content + 1))
        return self.integers(content, where, least=0)

    def integers(self, content: object, where: str, least: int = 1) -> tuple[int, ...]:
        values = self.items(content, where)
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
            raise self.wrong(f"{where} is {content!r}: give whole numbers of at least {least}")
        if len(set(values)) < len(values):
            raise self.wrong(f"{where} has a number twice")
        return tuple(values)

    def yes_or_no(self, key: str) -> bool:
        value = self.tree.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(f"{key} is {value!r}: give true or false")
        return value

    def mapping(self, key: str, needed: bool = False) -> Mapping[Any, Any]:
        content = self.tree.get(key) or {}
        if not isinstance(content, Mapping) or (needed and not content):
            raise self.wrong(f"{key} is {'missing' if key not in self.tree else 'not a mapping, or empty'}")
        return content

    def items(self, content: object, where: str) -> list[Any]:
        if not isinstance(content, list):
            raise self.wrong(f"{where} is {content!r}: give a list")
        return content

    def only_known(self, content: Mapping[Any, Any], known: Sequence[str], prefix: str) -> None:
        for key in content:
            if key not in known:
                raise self.wrong(f"{prefix}{key} is not known: the keys there are {', '.join(known)}")


def _check_apart(reader: _Reader, spec: Spec) -> None:
    """Refuse a key that stands in two places, of which one would quietly win, and one that no arm may have to itself."""
    tuned = spec.tuning.points if spec.tuning else {}
    for key in (key for points in tuned.values() for point in points for key in point):
        if key.startswith(SAME_FOR_ALL):
            raise reader.wrong(f"tune varies {key}, which must be the same for all arms")
    for base in spec.bases:
        places: dict[str, str] = {}
        for where, points in (
            ("set", (spec.settings,)),
            ("grid", spec.conditions),
            (f"bases.{base.name}.grid", base.points),
            ("tune", tuned.get(base.name, ())),
        ):
            for key in {key: None for point in points for key in point}:
                if key in places:
                    raise reader.wrong(f"{key} stands under {places[key]} and under {where}: leave one out")
                places[key] = where


def _with_parent(path: Path) -> tuple[Mapping[Any, Any], str]:
    """The content of a file and of the one it extends, and the same as text."""
    tree = _load(path)
    if "extends" not in tree:
        return tree, path.read_text(encoding="utf-8")
    parent = _load(path.parent / str(tree["extends"]))
    if "extends" in parent:
        raise InputError(f"{path}: it extends {tree['extends']}, which extends another file: one step is all there is")
    whole = {**parent, **{key: value for key, value in tree.items() if key != "extends"}}
    return whole, yaml.safe_dump(whole, sort_keys=False)


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        # Not PyYAML's own loader, which takes 1e-3 for text.
        content = get_loader("yaml")(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a sweep specification") from error
    except Exception as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML: {told}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no mapping of keys: see experiments/ for sweep specifications")
    return content
