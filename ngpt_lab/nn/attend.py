"""The attention functions by name, and the one that chooses among them."""

from dataclasses import dataclass, replace

import torch

from ngpt_lab.errors import InputError
from ngpt_lab.nn.attend_blocked import BLOCKED
from ngpt_lab.nn.attend_flash import FLASH, VARLEN
from ngpt_lab.nn.attend_flex import FLEX
from ngpt_lab.nn.attend_formula import EAGER
from ngpt_lab.nn.attend_function import AttentionChoice, AttentionFunction, Situation
from ngpt_lab.nn.attend_sdpa import FLASH3, FLASH4, SDPA, SDPA_CUDNN, SDPA_EFFICIENT, SDPA_FLASH, SDPA_MATH

# From here on the formula's scores, 1.1 T^2 bytes a head in bfloat16, are more than its speed on a CPU is worth.
LONGEST_BLOCKED = 2048


@dataclass(frozen=True)
class Auto:
    """The fastest function for each call; in float32 and wider it is torch's.

    Args:
        causal: what a GPU computes calls without a mask in half precision by.
    """

    causal: AttentionFunction = SDPA
    name: str = "auto"

    def used(self, situation: Situation) -> AttentionFunction:
        """See `AttentionChoice`."""
        if situation.device.type == "cpu":
            blocked = situation.dtype == torch.bfloat16 and 1 < situation.queries <= LONGEST_BLOCKED
            return BLOCKED if blocked else SDPA
        # FlexAttention skips blocks without a common document; only a compiled graph has it fused.
        if situation.documents and situation.compiled and FLEX.limits.of_call(situation) is None:
            return FLEX
        return self.causal if self.causal.limits.of_call(situation) is None else SDPA

    def settled(self, situation: Situation) -> "Auto":
        """See `AttentionChoice`: FlashAttention 4 or 3 where it is installed for the GPU."""
        without_mask = replace(situation, documents=False, padding=False)
        found = next((function for function in (FLASH4, FLASH3) if function.fits(without_mask)), SDPA)
        found.settled(without_mask)
        settled = self if found is self.causal else Auto(found)  # a compiled graph is for the object it was made with
        settled.used(situation).settled(situation)
        return settled


ATTENTION: dict[str, AttentionChoice] = {
    choice.name: choice
    for choice in (
        Auto(),
        SDPA,
        SDPA_FLASH,
        SDPA_EFFICIENT,
        SDPA_CUDNN,
        SDPA_MATH,
        EAGER,
        BLOCKED,
        FLASH,
        FLASH3,
        FLASH4,
        FLEX,
        VARLEN,
    )
}


def attention_named(name: str) -> AttentionChoice:
    """The attention function called `name`, or what chooses one.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ATTENTION:
        raise InputError(f"attention is {name!r}: choose one of {', '.join(ATTENTION)}")
    return ATTENTION[name]
