"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys
import time
from threading import Thread

# PR_SET_PDEATHSIG of Linux's prctl.
DEATH_OF_PARENT = 1
# Where a process tells those that it starts its own number.
STARTER = "NGPT_LAB_STARTER"


def end_with(parent: int) -> None:
    """See that this process ends at once, by SIGKILL, when its parent has.

    Args:
        parent: the number of who started it, as that one told it: by now it may have ended, and another be the parent.
    """
    if sys.platform == "linux":  # at once: another worker may take over the run the moment the parent is gone
        ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    Thread(target=wait_for_orphanhood, args=(parent,), daemon=True).start()


def wait_for_orphanhood(parent: int) -> None:
    """Wait until the parent is another, then end at once."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
