"""What the card of a dataset that lies in a folder may name: files of that folder."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ngpt_lab.errors import InputError

PLACES = ("data_files", "data_dir")
# A protocol needs a colon, and so does a drive of Windows.
LEADS_ELSEWHERE = re.compile(r"^[/\\~]|:|(^|[/\\])\.\.([/\\]|$)")


def check_card(folder: Path) -> None:
    """Refuse a card that leads out of its folder; what is not a card is left to who reads it.

    Raises:
        InputError: names the card and what it names.
    """
    for path in (folder / "README.md", folder / ".huggingface.yaml"):
        for place in _places(_card(path)):
            if LEADS_ELSEWHERE.search(place):
                raise InputError(
                    f"{path} names {place[:200]!r}, which does not lie in its folder: a card may name files of its folder alone"
                )


def _card(path: Path) -> Any:
    import yaml
    from huggingface_hub import DatasetCard

    if not path.is_file():
        return None
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    return DatasetCard.load(path).data.to_dict()


def _places(card: Any, named: bool = False) -> Iterator[str]:
    """Every string below a key that names files."""
    if isinstance(card, dict):
        for key, value in card.items():
            yield from _places(value, named or key in PLACES)
    elif isinstance(card, list):
        for value in card:
            yield from _places(value, named)
    elif named and isinstance(card, str):
        yield card
