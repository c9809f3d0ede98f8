"""Keys and times as a reader sees them; without torch or pandas."""

from collections.abc import Iterable


def short_key(key: str, keys: Iterable[str]) -> str:
    """The shortest end of a dotted key, less init_args, that no other of `keys` has."""
    parts = _parts(key)
    others = [_parts(other) for other in keys if other != key]
    length = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
    return ".".join(parts[-length:])


def _parts(key: str) -> list[str]:
    return [part for part in key.split(".") if part != "init_args"]


def duration(seconds: float) -> str:
    """Days and hours, hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24:,} days {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
