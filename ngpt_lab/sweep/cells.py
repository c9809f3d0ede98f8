"""The arms of a specification under each condition: parsed, built without memory, refused where not comparable."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngpt_lab.analysis.wording import short_key
from ngpt_lab.errors import InputError
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.sweep.fairness import check_same, check_sizes
from ngpt_lab.sweep.run import devices_asked
from ngpt_lab.sweep.spec import Base, Point, Spec
from ngpt_lab.training.arms import arm_arguments
from ngpt_lab.training.cli import DryCLI

# What is named by its last part.
CLASS_PATHS = ("ngpt_lab.", "torch.", "lightning.")


@dataclass(frozen=True, eq=False)
class Cell:
    """An arm under a condition: what `fit` is told, and what comes of it."""

    base: Base
    ablation: str
    arm: str
    point: Point
    condition: Point
    condition_name: str
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]
    parameters: int
    flops_per_token: int
    tokens_per_step: int
    data: Mapping[str, Any]

    @property
    def tuned_as(self) -> tuple[str, str]:
        """What the cells of a base have in common that are tuned by base: the base and the condition."""
        return self.base.name, self.condition_name

    @property
    def devices(self) -> int:
        """Devices of a run, on each node."""
        return devices_asked(self.settings)

    @property
    def nodes(self) -> int:
        """Machines that a run spreads over."""
        return int(self.settings["trainer.num_nodes"])


def names_of_points(spec: Spec) -> dict[str, str]:
    """A short name for each dotted key that a grid or the tuning varies."""
    points = [*spec.conditions, *(point for base in spec.bases for point in base.points)]
    points += [point for some in (spec.tuning.points.values() if spec.tuning else ()) for point in some]
    keys = list(dict.fromkeys(key for point in points for key in point))
    return {key: short_key(key, keys) for key in keys}


def point_name(point: Point, names: Mapping[str, str]) -> str:
    """A point as part of a name: -lr0.004-warmup0.1; keys that always share a value are named once."""
    told: dict[str, str] = {}
    for key, value in point.items():
        text = words_for(value)
        if text.startswith(CLASS_PATHS):
            text = text.rpartition(".")[2]
        told.setdefault(names[key].rpartition(".")[2] + re.sub(r"[^A-Za-z0-9._-]+", "_", text), key)
    return "".join(f"-{part}" for part in told)


def words_for(value: Any) -> str:
    """A value as `fit` reads it behind --key=."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value)


def make_cells(spec: Spec) -> list[Cell]:
    """Every arm under every condition, in the order of the file.

    Raises:
        InputError: an arm that does not parse, two that are the same, or that cannot be compared; an unknown baseline.
    """
    names = names_of_points(spec)
    cells = [
        _cell(spec, base, ablation, files, point, condition, names)
        for condition in spec.conditions
        for base in spec.bases
        for ablation, files in {"": (), **base.ablations}.items()
        for point in base.points
        if _wanted(spec, base, ablation, point, condition, names)
    ]
    if not cells:
        raise InputError(f"{spec.path}: include and exclude leave no arm")
    for condition in dict.fromkeys(cell.condition_name for cell in cells):
        _check([cell for cell in cells if cell.condition_name == condition], spec)
    return cells


def arm_name(base: Base, ablation: str, point: Point, names: Mapping[str, str]) -> str:
    """The base, the ablation and the point in one name."""
    return base.name + (f"-{ablation}" if ablation else "") + point_name(point, names)


def matches(pattern: Mapping[str, Sequence[Any]], fields: Mapping[str, Any]) -> bool:
    """Whether every field of `fields` that the pattern names has one of its values."""
    return all(fields[field] in values for field, values in pattern.items() if field in fields)


def check_patterns(spec: Spec) -> None:
    """Refuse fields of include and exclude, and values of them, that no run has.

    Raises:
        InputError: names the field and the value.
    """
    known = _values_of_fields(spec)
    for where, patterns in (("include", spec.include), ("exclude", spec.exclude)):
        for field, values in (item for pattern in patterns for item in pattern.items()):
            if field not in known:
                raise InputError(f"{spec.path}: {where} has the field {field!r}: the fields are {', '.join(known)}")
            for value in values:
                if value not in known[field] and known[field]:
                    told = ", ".join(map(str, known[field]))
                    raise InputError(f"{spec.path}: {where} has the {field} {value!r}, which no run has: there are {told}")


def _values_of_fields(spec: Spec) -> dict[str, list[Any]]:
    """What each field of a run may be; empty for the budget where the configs set it."""
    names = names_of_points(spec)
    known: dict[str, list[Any]] = {
        "base": [base.name for base in spec.bases],
        "ablation": list(dict.fromkeys(["", *(ablation for base in spec.bases for ablation in base.ablations)])),
        "arm": [
            arm_name(base, ablation, point, names)
            for base in spec.bases
            for ablation in ("", *base.ablations)
            for point in base.points
        ],
        "seed": list(spec.seeds),
        "budget": list(spec.budgets or ()),
    }
    for point in (*spec.conditions, *(point for base in spec.bases for point in base.points)):
        for key, value in point.items():
            known.setdefault(key, []).append(value)
    return known


def _wanted(spec: Spec, base: Base, ablation: str, point: Point, condition: Point, names: Mapping[str, str]) -> bool:
    """Whether some run of the cell may be wanted: patterns that also ask for a seed or a budget are left to the runs."""
    arm = arm_name(base, ablation, point, names)
    fields = {"base": base.name, "ablation": ablation, "arm": arm, **dict.fromkeys(names), **condition, **point}
    whole = [pattern for pattern in spec.exclude if not {"seed", "budget"} & pattern.keys()]
    included = not spec.include or any(matches(pattern, fields) for pattern in spec.include)
    return included and not any(matches(pattern, fields) for pattern in whole)


def _cell(
    spec: Spec,
    base: Base,
    ablation: str,
    files: Sequence[Path],
    point: Point,
    condition: Point,
    names: Mapping[str, str],
) -> Cell:
    arm = arm_name(base, ablation, point, names)
    overrides = {**spec.settings, **condition, **point}
    arguments = (
        *arm_arguments([*base.configs, *files]),
        *(f"--{key}={words_for(value)}" for key, value in overrides.items()),
    )
    try:
        dry = DryCLI(list(arguments))
        dry.datamodule.prepare_data()
        data = dry.datamodule.describe()
    except InputError as error:
        raise InputError(f"{spec.path}: arm {arm}: {error}") from error
    return Cell(
        base=base,
        ablation=ablation,
        arm=arm,
        point=point,
        condition=condition,
        condition_name=point_name(condition, names).removeprefix("-"),
        arguments=arguments,
        settings=dry.settings,
        parameters=dry.parameters,
        flops_per_token=flops_per_token(dry.model.backbone, dry.datamodule.seq_len),
        tokens_per_step=dry.datamodule.tokens_per_batch * dry.settings["trainer.accumulate_grad_batches"],
        data=data,
    )


def _check(cells: Sequence[Cell], spec: Spec) -> None:
    """Refuse cells of one condition that cannot be compared."""
    arms: dict[str, Cell] = {}
    for cell in cells:
        if cell.arm in arms:
            at = f" at {cell.condition_name}" if cell.condition_name else ""
            raise InputError(f"{spec.path}: two arms{at} are called {cell.arm}: rename a base, an ablation or a file")
        twin = next((other for other in arms.values() if other.settings == cell.settings), None)
        if twin is not None:
            raise InputError(f"{spec.path}: the arms {twin.arm} and {cell.arm} are the same config: leave one out")
        arms[cell.arm] = cell
    if spec.baseline not in arms:
        where = f" at {cells[0].condition_name}" if cells[0].condition_name else ""
        raise InputError(f"{spec.path}: compare.baseline {spec.baseline} is not among the arms{where}: {', '.join(arms)}")
    try:
        check_same({name: cell.settings for name, cell in arms.items()}, spec.baseline)
        if not spec.allow_unequal:
            check_sizes({name: cell.parameters for name, cell in arms.items()}, spec.baseline)
    except InputError as error:
        told = str(error).replace("--allow-unequal", "allow_unequal: true")
        raise InputError(f"{spec.path}: {told}") from error
