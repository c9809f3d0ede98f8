"""Which attention function a run computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ngpt_lab.data.windows import MaskedDocuments

if TYPE_CHECKING:
    from ngpt_lab.training.module import BackboneModule

# What attention computes in, by Lightning's names; under autocast that is not what the weights are stored in.
DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}


def settle_attention(
    module: BackboneModule, device: torch.device, precision: str, data: Any, training: bool = True
) -> dict[str, str]:
    """Have the backbone attend as it will all through a run, and say how: the name asked for, the one used, its kernel.

    Args:
        module: around the backbone.
        device: where it will run.
        precision: Lightning's name of it.
        data: the data module, set up; None where there is none.
        training: whether there are backward passes.

    Raises:
        InputError: the attention function asked for cannot be used there.
    """
    backbone, length = module.backbone, int(getattr(data, "seq_len", 128))
    described: dict[str, Any] = data.describe() if hasattr(data, "describe") else {}
    situation = backbone.situation(
        device,
        DTYPES.get(str(precision).partition("-")[0], torch.float32),
        length,
        length,
        documents=described.get("windows") == MaskedDocuments.__name__,
        padding=module.pads,
        dropout=backbone.attention_dropout,
        gradients=training,
        compiled=module.compile_backbone,
    )
    backbone.attend = backbone.attend.settled(situation)
    used = backbone.attend.used(situation)
    return {"asked": backbone.attend.name, "used": used.name, "kernel": used.kernel(situation)}
