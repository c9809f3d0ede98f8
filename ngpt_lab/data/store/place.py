"""Where a store lies, and what it was made from."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.store.fields import Fields
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically
from ngpt_lab.machine import user_cache

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import TextSource
    from ngpt_lab.data.tokenizers import Tokenizer

SOURCE = "source.json"
# It has an entry for each file of text, of about 200 bytes.
LARGEST_SOURCE = 2**30


def default_folder(name: str, spec: Mapping[str, Any]) -> Path:
    """Where what a spec makes lies if no folder is named: $NGPT_LAB_CACHE, or ngpt_lab in the user's cache, then tokens/."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-.") or "text"
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return user_cache() / "tokens" / f"{readable}-{digest[:12]}"


def store_folder(source: "TextSource", tokenizer: "Tokenizer", folder: Path | None) -> Path:
    """Where the tokens of a source lie."""
    if folder is not None:
        return folder.expanduser().absolute()
    return default_folder(source.folder_name, {"source": source.spec(), "tokenizer": tokenizer.spec()})


def record_source(source: "TextSource", tokenizer: "Tokenizer", folder: Path) -> None:
    """Write down what tokens are made from.

    Raises:
        InputError: the source has too many files.
    """
    record = {
        "name": source.name,
        "python": source.python,
        "spec": source.spec(),
        "tokenizer": tokenizer.spec(),
        "state": source.state(),
    }
    write_source(folder, record)


def write_source(folder: Path, record: Mapping[str, Any]) -> None:
    """Write source.json.

    Raises:
        InputError: it would be larger than what is read.
    """
    content = (json.dumps(record, indent=1) + "\n").encode()
    if len(content) > LARGEST_SOURCE:
        raise InputError(
            f"{record['name']} has too many files: a list of them would have {len(content)} bytes, of which {LARGEST_SOURCE} "
            "can be read; join them into fewer"
        )
    write_atomically(folder / SOURCE, content)


def read_source(folder: Path) -> Fields:
    """What `record_source` wrote.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return Fields.of_file(folder / SOURCE, LARGEST_SOURCE)


def renew_source(source: "TextSource", folder: Path) -> None:
    """Write down the times of files that have a new one and the same text, unless the folder can only be read."""
    recorded = read_source(folder)
    if recorded.content.get("spec") != json.loads(json.dumps(source.spec())):
        return
    if state := source.renewed(recorded.object("state").content):
        with suppress(InputError):
            write_source(folder, {**recorded.content, "state": state})


def check_source(source: "TextSource", tokenizer: "Tokenizer", recorded: Fields, folder: Path) -> None:
    """Compare what tokens were made from with what is there now, the cheapest first.

    Args:
        source: what is asked for.
        tokenizer: what is asked for.
        recorded: what `record_source` wrote.
        folder: what the user would have to remove.

    Raises:
        InputError: another tokenizer or source, or one that has changed.
    """
    had, asked = recorded.object("tokenizer").content, json.loads(json.dumps(tokenizer.spec()))
    if had != asked:
        raise InputError(
            f"{folder} holds tokens made by {told(had)}, and this run asks for {told(asked)}: name another folder with "
            "--data.store, or the same tokenizer"
        )
    if recorded.object("spec").content != json.loads(json.dumps(source.spec())):
        raise InputError(
            f"{folder} holds tokens of {recorded.text('name')}, and this run reads {source.name} or cuts it otherwise: name "
            "another folder with --data.store"
        )
    if changed := source.changed(recorded.object("state").content):
        raise InputError(
            f"{source.name} has changed since it was tokenized into {folder} ({changed}): remove {folder} to tokenize it "
            "anew, or restore what has changed"
        )


def told(spec: Mapping[str, Any]) -> str:
    """A tokenizer's spec in words."""
    arguments = ", ".join(f"{name} {str(value)[:40]}" for name, value in spec.items() if name != "class" and value is not None)
    return f"{spec.get('class')} ({arguments})" if arguments else str(spec.get("class"))
