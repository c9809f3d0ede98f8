"""Whether a decoder is something a Hugging Face class can hold, and the config fields both classes share."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from ngpt_lab.errors import InputError
from ngpt_lab.interop.hf_config import ACTIVATIONS
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.nn.attention import Attention
from ngpt_lab.nn.linear import StreamMatrix, as_stored
from ngpt_lab.nn.plain import Activation, OwnValue
from ngpt_lab.nn.rotary import HalfRotary

T = TypeVar("T")
PartType = TypeVar("PartType", bound=nn.Module)


class Exported(NamedTuple):
    """A checkpoint in a reference's own terms."""

    state_dict: dict[str, Tensor]
    config: dict[str, Any]


class Target:
    """A decoder looked at with one kind's eyes: each method refuses, by name, what that kind has no place for."""

    def __init__(self, kind: str, decoder: Decoder) -> None:
        self.kind, self.decoder = kind, decoder

    def refusal(self, what: str, advice: str) -> InputError:
        """The error that says what cannot be exported."""
        return InputError(f"cannot export to {self.kind}: {what}; {advice}")

    def part(self, path: str, cls: type[PartType]) -> PartType:
        """The part at `path`, which must be exactly a `cls`."""
        part = self.decoder.get_submodule(path)
        if type(part) is not cls:
            raise self.refusal(f"{path} is {type(part).__name__}", f"it holds {cls.__name__} only")
        return part

    def parts(self, path: str, cls: type[PartType]) -> list[PartType]:
        """The parts of every layer at `path` below the block, which must be exactly `cls`."""
        return [self.part(f"blocks.{layer}.{path}", cls) for layer in range(self.decoder.dims.n_layers)]

    def agreed(self, what: str, values: Iterable[T]) -> T:
        """The one value that all layers have."""
        first, *others = values
        if any(other != first for other in others):
            raise self.refusal(f"{what} differs between parts", "it holds one value for all")
        return first

    def must(self, what: str, value: object, allowed: object) -> None:
        """Refuse a setting with another value than the one the target has built in."""
        if value != allowed:
            shown, only = (getattr(v, "__name__", repr(v)) for v in (value, allowed))
            raise self.refusal(f"{what} is {shown}", f"it holds {only} only")

    def tied(self, matrix: StreamMatrix) -> bool:
        """Whether the head's matrix is the embedding's."""
        return matrix.weight is self.decoder.embedding.weight

    def activation(self, functions: Iterable[Activation]) -> str:
        """The name of the layers' activation."""
        function = self.agreed("mlp.activation", functions)
        for name, known in ACTIVATIONS.items():
            if function is known:
                return name
        raise self.refusal(f"mlp.activation is {function!r}", f"it holds {', '.join(ACTIVATIONS)}")

    def shared_config(self) -> dict[str, Any]:
        """Sizes, attention and rotation; special tokens are null, for a decoder knows none."""
        dims, attentions = self.decoder.dims, self.parts("attention", Attention)
        self.parts("attention.value", OwnValue)
        for path, part in self.decoder.named_modules():
            if isinstance(part, StreamMatrix):
                self.must(f"{path}.used_as (the setting `weights`)", part.used_as, as_stored)
        return {
            "vocab_size": dims.vocab_size,
            "hidden_size": dims.d_model,
            "intermediate_size": dims.d_ff,
            "num_hidden_layers": dims.n_layers,
            "num_attention_heads": dims.n_heads,
            "num_key_value_heads": dims.n_kv_heads,
            "head_dim": dims.d_head,
            "attention_bias": self.agreed("attention_bias", [a.q.bias is not None for a in attentions]),
            "attention_dropout": self.agreed("attention_dropout", [a.dropout for a in attentions]),
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            **self._rope(),
        }

    def _rope(self) -> dict[str, Any]:
        rotary, d_head = self.part("rotary", HalfRotary), self.decoder.dims.d_head
        fraction = rotary.channels / d_head
        if int(d_head * fraction) != rotary.channels:  # rounded to just below the whole number of channels
            fraction = (rotary.channels + 0.5) / d_head
        said = {"rope_theta": rotary.theta, "partial_rotary_factor": fraction}
        return {**said, "rope_parameters": {"rope_type": "default", **said}}
