"""Ending a process that was asked to end: at once, or at the next moment from which its work can go on."""

import signal
import threading
from types import FrameType, TracebackType
from typing import NoReturn, Self

# SIGUSR1 is what SLURM sends where asked to tell a job of its end some time before; Windows has none.
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
EXIT_CODE = 143


class Interrupted(BaseException):
    """A signal asked the process to end; no `Exception`, so that nothing takes it for an error and goes on."""


class Signals:
    """Turns SIGTERM and SIGUSR1 into `Interrupted`, in the main thread, for the time within.

    Attributes:
        received: the signal's name; None while there was none.
        go_on: what to do to go on, for the message.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.go_on = ""
        self._deferred = False
        self._told = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in NUMBERS}
            self._install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            # None is a handler that was not set from Python, and cannot be.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before = {}

    def defer(self) -> None:
        """From now on a signal is only noted: the work looks at `received` where it can be left."""
        self._install()
        self._deferred = True

    def at_once(self) -> None:
        """From now on a signal ends the process at once, as does one that was noted.

        Raises:
            Interrupted: one was noted.
        """
        self._install()
        self._deferred = False
        if self.received and not self._told:
            self.end()

    def end(self) -> NoReturn:
        """End the process.

        Raises:
            Interrupted: always.
        """
        self._told, self._deferred = True, False
        raise Interrupted(f"interrupted by {self.received}{self.go_on and '; '}{self.go_on}")

    def _install(self) -> None:
        # Again and again: lightning puts a handler of its own in place at the start of each stage.
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if not self._deferred and not self._told:
            self.end()
