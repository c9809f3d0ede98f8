"""Our decoders as Hugging Face checkpoints."""

from collections.abc import Callable

import torch

from ngpt_lab.errors import InputError
from ngpt_lab.interop import hf_nemotron, hf_ngpt
from ngpt_lab.interop.target import Exported, Target
from ngpt_lab.models.decoder import Decoder

EXPORTERS: dict[str, Callable[[Target], Exported]] = {
    hf_nemotron.KIND: hf_nemotron.export,
    hf_ngpt.KIND: hf_ngpt.export,
}


@torch.no_grad()
def export_weights(decoder: Decoder, kind: str) -> Exported:
    """The inverse of `import_weights`: `state_dict, config = export_weights(decoder, "hf-nemotron")`.

    What was imported comes back bit for bit. Scales of other settings are stored differently so that the used values are the
    same: one for all channels is repeated, and a stored size that differs between layers is brought to one.

    Args:
        decoder: whose parts the target can hold.
        kind: hf-nemotron or hf-ngpt.

    Raises:
        InputError: a part or a setting that the target cannot hold, by name.
    """
    if kind not in EXPORTERS:
        raise InputError(f"kind is {kind!r}: weights are exported to {' or '.join(EXPORTERS)}")
    return EXPORTERS[kind](Target(kind, decoder))
