"""Our decoders as Hugging Face checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.interop import hf_nemotron, hf_ngpt, hf_ngpt_export
from ngpt_lab.interop.target import Exported, Target
from ngpt_lab.models.decoder import Decoder

EXPORTERS: dict[str, Callable[[Target], Exported]] = {
    hf_nemotron.KIND: hf_nemotron.export,
    hf_ngpt.KIND: hf_ngpt_export.export,
}


def export_weights(decoder: Decoder, kind: str) -> dict[str, Tensor]:
    """The inverse of `import_weights`: a decoder's tensors under the reference's names; `export_config` has its config.

    What was imported comes back bit for bit. Scales of other settings are stored differently so that the used values are the
    same: one for all channels is repeated, and a stored size that differs between layers is brought to one. Tensors that need
    no conversion share the decoder's memory. A tied model has no `lm_head.weight`, as in a saved checkpoint.

    Args:
        decoder: whose parts the target can hold.
        kind: hf-nemotron or hf-ngpt.

    Raises:
        InputError: a part or a setting that the target cannot hold, by name.
    """
    return _exported(decoder, kind).state_dict


def export_config(decoder: Decoder, kind: str) -> dict[str, Any]:
    """What the reference's config.json needs beside `export_weights`; the arguments and errors are the same."""
    return _exported(decoder, kind).config


@torch.no_grad()
def _exported(decoder: Decoder, kind: str) -> Exported:
    if kind not in EXPORTERS:
        raise InputError(f"kind is {kind!r}: weights are exported to {' or '.join(EXPORTERS)}")
    return EXPORTERS[kind](Target(kind, decoder))
