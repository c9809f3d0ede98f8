"""The names and shapes of the reference's checkpoints, for transformers to load into our decoder and to save from it."""

from typing import Any

from torch import Tensor
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming

from ngpt_lab.interop.hf_ngpt import COLUMNS, NAMES
from ngpt_lab.interop.tensors import translated


class FromColumn(ConversionOps):
    """A vector stored as [n, 1] to (n,)."""

    def convert(self, input_dict: dict[str, Any], *_: Any, **seen: Any) -> Any:
        """The one tensor there is, under its full name."""
        return {seen["full_layer_name"]: only_tensor(input_dict).squeeze(-1)}

    @property
    def reverse_op(self) -> ConversionOps:
        """What is done on saving."""
        return ToColumn()


class ToColumn(ConversionOps):
    """The inverse of `FromColumn`."""

    def convert(self, input_dict: dict[str, Any], *_: Any, **seen: Any) -> Any:
        """The one tensor there is, under its full name."""
        return {seen["full_layer_name"]: only_tensor(input_dict).unsqueeze(-1)}

    @property
    def reverse_op(self) -> ConversionOps:
        """What is done on loading."""
        return FromColumn()


def only_tensor(tensors: dict[str, Any]) -> Tensor:
    """The tensor of a conversion from one name to one other."""
    (found,) = tensors.values()
    return found[0] if isinstance(found, list) else found


def key_mapping() -> list[Any]:
    """From the reference's names to those of our modules.

    They match with the base model's prefix and without: transformers adds it or takes it away.
    """
    return [transform(theirs.removeprefix("model."), ours) for ours, theirs in NAMES.items()]


def transform(theirs: str, ours: str) -> Any:
    """One line of the table: a parameter (its name ends so), or a module with all its parameters."""
    ours = ours if ours.startswith("lm_head") else f"decoder.{ours}"
    end = "" if ours.endswith(".stored") else "."
    source, target = (f"{name}{end}".replace(".", r"\.") for name in (theirs, ours))
    # Written so that transformers can read it backwards too.
    source, target = source.replace("{}", r"(\d+)"), target.replace("{}", r"\1")
    if theirs.endswith(COLUMNS):
        return WeightConverter(source, target, operations=[FromColumn()])
    return WeightRenaming(source, target)


def reference_name(name: str) -> str:
    """The reference's name of what the NGPT classes call `name`; the name itself where there is none."""
    prefix, _, ours = name.rpartition("decoder.")
    try:
        return prefix + translated(ours, NAMES).removeprefix("model.")
    except KeyError:
        return name


def from_column(theirs: str, tensor: Tensor) -> Tensor:
    """The tensor that the reference stores as `theirs`, in our shape."""
    return tensor.squeeze(-1) if theirs.endswith(COLUMNS) else tensor


def register_keys(model_type: str) -> None:
    """Tell transformers, of all models of a type: also of classes made of ours; again changes nothing."""
    register_checkpoint_conversion_mapping(model_type, key_mapping(), overwrite=True)
