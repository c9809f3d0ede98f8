"""What of the machine this process may use."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    import torch


# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_named(asked: Any) -> int | None:
    """How many devices a value of trainer.devices names: 2, "2", "0,1" or [0, 1]; None where it leaves that to the machine."""
    if isinstance(asked, str) and "," in asked:
        asked = asked.split(",")
    if isinstance(asked, list | tuple):
        return len([index for index in asked if str(index).strip()]) or None
    number = str(asked).strip()
    return int(number) or None if number.isdecimal() else None


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next tensor, where it is glibc.

    It would give a large tensor's memory back at once, and the kernel clear every page of the next one, at every step of
    a training on a CPU. From here on the process's memory stays at its highest.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


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


def user_cache() -> Path:
    """Where what can be made again is kept: $NGPT_LAB_CACHE, or ngpt_lab in the user's cache."""
    cache = os.environ.get("NGPT_LAB_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ngpt_lab")
    return Path(cache).expanduser().absolute()


def keep_compiled() -> None:
    """Let torch keep what it compiles in the user's cache, where later processes find it; torch's own place is under /tmp.

    $TORCHINDUCTOR_CACHE_DIR is left as it is, and so is torch's place where the user's cache cannot be written.
    """
    folder = user_cache() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):  # one that was there before may be another's
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
