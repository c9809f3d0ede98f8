"""The references by name, and weights from them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.interop.hf_nemotron import HF_NEMOTRON
from ngpt_lab.interop.hf_ngpt import HF_NGPT
from ngpt_lab.interop.lucidrains import LUCIDRAINS
from ngpt_lab.interop.nvidia import NVIDIA
from ngpt_lab.interop.tensors import Names, Reference, check, fill
from ngpt_lab.models.decoder import Decoder

# By kind, then by what `rope` can be.
REFERENCES: dict[str, Mapping[str, Reference]] = {
    "hf-nemotron": {"rotation": HF_NEMOTRON},
    "hf-ngpt": {"rotation": HF_NGPT},
    "nvidia-ngpt": NVIDIA,
    "lucidrains-ngpt": {"rotation": LUCIDRAINS},
}


def import_weights(
    kind: str, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], *, rope: str = "rotation"
) -> Decoder:
    """The decoder that computes what the reference computes: `decoder(tokens)` (B, T) gives its logits (B, T, V).

    Args:
        kind: hf-nemotron, hf-ngpt, nvidia-ngpt or lucidrains-ngpt.
        state_dict: tensors under the reference's own names; they are copied, each in its own dtype.
        config: the reference's own config: the dict of a Hugging Face config.json in either spelling of the rope fields,
            the fields of NVIDIA's GPTConfig, or the arguments of the small library's constructor.
        rope: for nvidia-ngpt, `rotation`, or `literal` for weights trained with the repository's own function, which is not
            a rotation.

    Raises:
        InputError: a config field that cannot be honoured, or tensors missing, left over or of another shape, all named.
    """
    reference = _reference(kind, rope)
    decoder = reference.skeleton(config)
    check(reference, decoder, state_dict)
    fill(decoder, {ours: state_dict[theirs].clone() for ours, theirs in reference.names(decoder).items()})
    return decoder


def reference_names(kind: str, config: Mapping[str, Any]) -> Names:
    """Every parameter's name in both worlds: `.theirs[our name]` and `.ours[the reference's name]`.

    Args:
        kind: as `import_weights` takes it.
        config: as `import_weights` takes it; biases, tying and the number of layers follow from it.

    Raises:
        InputError: a config field that cannot be honoured.
    """
    reference = _reference(kind, "rotation")
    theirs = reference.names(reference.skeleton(config))
    return Names(theirs, {name: ours for ours, name in theirs.items()})


def _reference(kind: str, rope: str) -> Reference:
    if kind not in REFERENCES:
        raise InputError(f"kind is {kind!r}: choose one of {', '.join(REFERENCES)}")
    if rope not in REFERENCES[kind]:
        raise InputError(f"rope is {rope!r}: {kind} has {' or '.join(REFERENCES[kind])}")
    return REFERENCES[kind][rope]
