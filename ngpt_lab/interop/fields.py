"""A reference's own config, read field by field: every field is honoured, known to be bookkeeping, or refused by name."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from ngpt_lab.errors import InputError

# Stands in a table of defaults for a field that the reference's constructor has no default for.
REQUIRED = object()


class Fields:
    """The fields of a config, with the reference's own defaults for those left out.

    Args:
        kind: which reference, for the messages.
        config: its config as a dict.
        defaults: every field that says something about the function, with its default or `REQUIRED`.
        ignored: fields that say nothing about it.

    Raises:
        InputError: the config has a field that is in neither.
    """

    def __init__(
        self, kind: str, config: Mapping[str, Any], defaults: Mapping[str, object], ignored: Set[str] = frozenset()
    ) -> None:
        self.kind, self._config, self._defaults = kind, config, defaults
        unknown = sorted(set(config) - set(defaults) - ignored)
        if unknown:
            raise InputError(f"{kind} config: {', '.join(unknown)} is not known here, so it cannot be honoured: remove it")

    def refusal(self, name: str, advice: str) -> InputError:
        """The error that says what `name` is and what to do about it."""
        return InputError(f"{self.kind} config: {name} is {self._config.get(name, self._defaults.get(name))!r}: {advice}")

    def given(self, name: str) -> Any:
        """What the config itself says, None where it says nothing."""
        return self._config.get(name)

    def take(self, name: str) -> Any:
        """The field, or the reference's default for it."""
        value = self._config.get(name, self._defaults[name])
        if value is REQUIRED:
            raise InputError(f"{self.kind} config: {name} is missing, and the reference has no usable default: give it")
        return value

    def default(self, name: str) -> Any:
        """The reference's default."""
        return self._defaults[name]

    def whole(self, name: str) -> int:
        """A whole number of at least 1, and such that a tensor can have that size."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            raise self.refusal(name, "it must be a whole number of at least 1, and below 2**31")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        return self._finite(name, self.take(name))

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.number(name)
        if value <= 0:
            raise self.refusal(name, "it must be above 0")
        return value

    def flag(self, name: str) -> bool:
        """True or false, also written 1 or 0."""
        value = self.take(name)
        if value not in (True, False):
            raise self.refusal(name, "it must be true or false")
        return bool(value)

    def only(self, name: str, value: object, why: str) -> None:
        """Refuse the field unless it has the one value that can be honoured."""
        if self.take(name) != value:
            raise self.refusal(name, f"only {value!r} can be imported, {why}")

    def per_layer(self, name: str, n_layers: int, fallback: float) -> list[float]:
        """A number for each layer from one number, a list of one per layer, or null: `fallback`."""
        value = self.take(name)
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * n_layers
        if len(values) != n_layers:
            raise self.refusal(name, f"it must be one number, or one for each of the {n_layers} layers")
        return [fallback if entry is None else self._finite(name, entry) for entry in values]

    def _finite(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refusal(name, "it must be a finite number")
        return float(value)
