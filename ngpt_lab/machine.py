"""What of the machine this process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    import torch


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable(name: str) -> torch.device:
    """The device of a name.

    Raises:
        InputError: there is none, torch cannot use it, or it holds no numbers, as meta.
    """
    import torch  # takes a while, and counting cores needs none of it

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # which of them depends on the device
        told = str(error).partition("\n")[0]
        raise InputError(
            f"--device {name} cannot be used here ({told}): give cpu, or a device that this machine has"
        ) from error
    return device
