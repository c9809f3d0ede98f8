"""What a file was when it was read, and whether it still is."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ngpt_lab.data.sources.addresses import is_remote
from ngpt_lab.data.sources.opening import complaints, web
from ngpt_lab.errors import InputError

SERVER_SAYS = {"size": "size", "etag": "ETag", "last_modified": "Last-Modified"}


def stamps(addresses: Iterable[str]) -> dict[str, Any]:
    """Size, time of change and SHA-256 of each file as it lies there; of a remote one what the server says of it.

    Raises:
        InputError: a file cannot be read.
    """
    return {address: _remote_stamp(address) if is_remote(address) else _stamp(address) for address in addresses}


def changed_files(addresses: Iterable[str], recorded: Any) -> str | None:
    """A clause on the first file that is new, gone, or another than `recorded`, which is what `stamps` gave.

    A remote file that cannot be asked about counts as unchanged: what was stored of it is used without a network.
    """
    if not isinstance(recorded, Mapping):
        return "no files are recorded for it"
    addresses = set(addresses)
    for address in sorted(addresses | recorded.keys()):
        if address not in recorded:
            return f"{address} is new"
        if address not in addresses or not (is_remote(address) or os.path.exists(address)):
            return f"{address} is gone"
        if _differs(address, recorded[address]):
            return f"{address} has changed"
    return None


def renewed_stamps(addresses: Iterable[str], recorded: Any) -> dict[str, Any] | None:
    """What is recorded with the new times of files that have another one and the same content; None where none has.

    A copy or a checkout has another time and the same text, which is read here so that nobody has to read it again.
    """
    if not isinstance(recorded, Mapping):
        return None
    found = {address: _renewed(address, recorded[address]) for address in addresses if address in recorded}
    new = {address: stamp for address, stamp in found.items() if stamp}
    return {**recorded, **new} if new else None


def _renewed(address: str, recorded: Any) -> dict[str, Any] | None:
    if is_remote(address) or not isinstance(recorded, Mapping) or not os.path.exists(address):
        return None
    with complaints(address):
        status = os.stat(address)
    if status.st_size != recorded.get("size") or status.st_mtime_ns == recorded.get("mtime_ns"):
        return None
    stamp = _stamp(address)
    return stamp if stamp["sha256"] == recorded.get("sha256") else None


def _differs(address: str, recorded: Any) -> bool:
    if not isinstance(recorded, Mapping):
        return True
    if is_remote(address):
        return _differs_remotely(address, recorded)
    with complaints(address):
        status = os.stat(address)
        if status.st_size != recorded.get("size"):
            return True
        # A copy or a checkout has another time and the same text.
        return status.st_mtime_ns != recorded.get("mtime_ns") and _sha256(address) != recorded.get("sha256")


def _differs_remotely(address: str, recorded: Mapping[str, Any]) -> bool:
    try:
        now = _remote_stamp(address)
    except InputError:
        return False
    return any(now[key] != recorded.get(key) for key in now.keys() & recorded.keys())


def _stamp(address: str) -> dict[str, Any]:
    with complaints(address):
        status = os.stat(address)
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(address)}


def _sha256(address: str) -> str:
    with open(address, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remote_stamp(address: str) -> dict[str, Any]:
    with complaints(address):
        files = web()
        files.invalidate_cache()
        said = files.info(address)
    return {key: said[name] for key, name in SERVER_SAYS.items() if said.get(name) is not None}
