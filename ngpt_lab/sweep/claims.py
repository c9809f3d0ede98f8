"""Which worker trains which run, where several workers, of one machine or of many, serve one sweep on one file system.

A claim is a file RUN.NNNN, made with O_EXCL; the highest number of a run is its holder's. A holder keeps its file's time
new; one who finds the time too old, by the clock of the file system, makes the next number, which one alone can. As no file
is ever renamed or removed, there is no moment at which a crash, or a stale listing, could give a run to two.

A cluster's job and those who wait for it hold one claim together, by the job's ticket: each keeps it new, so that the run is
taken while the job is in the queue and nobody trains it, and stays taken when who submitted it is gone.
"""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

# A claim that was not renewed for so long, in seconds, is nobody's; NFS may show a time that is a minute old.
EXPIRY = 120.0


class Claims:
    """The claims of one worker on the runs of a sweep.

    Args:
        folder: where the workers of the sweep keep their claims; made where it is missing.
        beat: seconds between two renewals of the claims held.
        expiry: seconds after which a claim that was not renewed may be taken over.
    """

    def __init__(self, folder: Path, beat: float = 5.0, expiry: float = EXPIRY) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.beat, self.expiry = folder, beat, expiry
        self._held: dict[str, Path] = {}
        self._tickets: dict[str, str] = {}
        self._lost: set[str] = set()
        self._lock, self._closed = Lock(), Event()
        self._thread = Thread(target=self._keep, name="claims", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str, ticket: str | None = None) -> bool:
        """Claim a run; False where another worker holds it.

        Args:
            name: the run's.
            ticket: of the job that trains it, where that is another process, maybe of another machine: all who have it
                hold the run together, and this joins them.
        """
        holder = newest(self.folder).get(name)
        if holder is None:
            return self._make(name, self.folder / f"{name}.0001", ticket)
        if is_dead(holder, self.expiry):
            return self._make(name, following(holder), ticket)
        if ticket is None or whole(holder).get("ticket") != ticket:
            return False
        self._hold(name, holder, ticket)
        return True

    def _make(self, name: str, path: Path, ticket: str | None) -> bool:
        try:
            with path.open("x") as file:  # O_CREAT | O_EXCL
                file.write(json.dumps(this_process() if ticket is None else {"ticket": ticket}))
        except FileExistsError:  # made at this moment, or long ago where the listing was old: by one with the same ticket?
            if ticket is None or whole(path).get("ticket") != ticket:
                return False
        self._hold(name, path, ticket)
        return True

    def _hold(self, name: str, path: Path, ticket: str | None) -> None:
        self._held[name] = path
        if ticket is not None:
            self._tickets[name] = ticket

    def ticket(self, name: str) -> str | None:
        """The ticket by which a run is held; None where this worker holds it alone, or not."""
        return self._tickets.get(name)

    def holds(self, name: str) -> bool:
        """Whether a run is this worker's still; no longer so where another worker thought this one dead."""
        path, ticket = self._held.get(name), self._tickets.get(name)
        if path is None:
            return False
        while ticket is not None and (after := following(path)).exists() and whole(after).get("ticket") == ticket:
            path = self._held[name] = after
        return path.exists() and not following(path).exists()

    def leave(self, name: str) -> None:
        """Hold a run no longer, and let those with the same ticket keep it."""
        with self._lock:
            self._forget(name)

    def lost(self) -> set[str]:
        """The runs that another worker took over, seen at the latest renewal; this one must leave them at once."""
        return self._lost & self._held.keys()

    def release(self, name: str) -> None:
        """Leave a run to whoever wants it; a lost one as well."""
        with self._lock, suppress(OSError):
            os.utime(self._forget(name), (0, 0))

    def _forget(self, name: str) -> Path:
        self._tickets.pop(name, None)
        self._lost.discard(name)
        return self._held.pop(name)

    def _keep(self) -> None:
        while not self._closed.wait(self.beat):
            for name in list(self._held):
                self._renew(name)

    def _renew(self, name: str) -> None:
        with self._lock, suppress(OSError):  # a file system that is away for a moment
            if name in self._held and not self.holds(name):
                self._lost.add(name)
            elif name in self._held:
                os.utime(self._held[name])


class NoClaims(Claims):
    """For a worker that knows itself alone: every run is its own."""

    def __init__(self) -> None:
        """Nothing to keep."""

    def take(self, name: str, ticket: str | None = None) -> bool:
        """See `Claims`."""
        return True

    def ticket(self, name: str) -> str | None:
        """See `Claims`."""
        return None

    def holds(self, name: str) -> bool:
        """See `Claims`."""
        return True

    def leave(self, name: str) -> None:
        """See `Claims`."""

    def lost(self) -> set[str]:
        """See `Claims`."""
        return set()

    def release(self, name: str) -> None:
        """See `Claims`."""


def newest(folder: Path) -> dict[str, Path]:
    """Each run's claim with the highest number."""
    found: dict[str, int] = {}
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, _, number = file.rpartition(".")
        if number.isdecimal():
            found[name] = max(found.get(name, 0), int(number))
    return {name: folder / f"{name}.{number:04d}" for name, number in found.items()}


def following(claim: Path) -> Path:
    """The claim with the next number."""
    name, _, number = claim.name.rpartition(".")
    return claim.with_name(f"{name}.{int(number) + 1:04d}")


def is_dead(claim: Path, expiry: float) -> bool:
    """Whether a claim was given up, not renewed for `expiry` seconds, or made by a process of this machine that has ended."""
    try:
        renewed = claim.stat().st_mtime
    except OSError:
        return False
    return renewed == 0 or clock(claim.parent) - renewed > expiry or has_ended(read(claim))


def clock(folder: Path) -> float:
    """The time by the file system's own clock, which other machines see as well; this machine's where it is read-only."""
    probe = folder / f".clock-{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def read(claim: Path) -> dict[str, Any]:
    """Who made a claim; empty in the moment before that is written, or where it cannot be read."""
    try:
        holder = json.loads(claim.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def whole(claim: Path, patience: float = 2.0) -> dict[str, Any]:
    """Who made a claim, where that may be being written at this moment."""
    end = time.monotonic() + patience
    while not (content := read(claim)) and time.monotonic() < end:
        time.sleep(0.02)
    return content


def this_process() -> dict[str, Any]:
    """What a claim says of its holder."""
    return {"host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "started": state(os.getpid())}


def machine() -> str | None:
    """What processes have in common that see each other's numbers: the boot of a machine, and the namespace of the numbers."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return None


def state(process: int) -> str | None:
    """When a process started, in ticks since the boot, or `ended` where its parent alone still knows it; None where untold."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if fields[0] in "ZX" else fields[19]


def has_ended(holder: dict[str, Any]) -> bool:
    """Whether a holder was a process of this very machine, and is no more; its number may be another's by now."""
    mine = machine()
    if mine is None or (holder.get("machine"), holder.get("host")) != (mine, socket.gethostname()):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's
    return state(holder["pid"]) not in (None, holder["started"])
