"""How far an unfinished store is: what a process that goes on with it has to know."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ngpt_lab.data.corpora import SPLITS
from ngpt_lab.data.store.fields import Fields
from ngpt_lab.data.store.manifest import ShardRecord, SplitRecord, shard_name
from ngpt_lab.files import write_atomically

PROGRESS = "progress.json"


@dataclass
class SplitProgress:
    """How far a split is.

    Args:
        split: its name.
        piece: the piece of the source to go on with.
        offset: how many tokens of that piece are in a shard already.
        size: bytes of the pieces before it.
        begins: whether the next token begins a document.
        documents: how many begin in the shards.
        shards: those that are finished.
        lines: the line starts found; see `ngpt_lab.data.store.lines`.
    """

    split: str
    piece: int = 0
    offset: int = 0
    size: int = 0
    begins: bool = True
    documents: int = 0
    shards: list[ShardRecord] = field(default_factory=list)
    lines: frozenset[bytes] = frozenset()

    @property
    def tokens(self) -> int:
        """Tokens in the shards."""
        return sum(shard.tokens for shard in self.shards)

    @classmethod
    def read(cls, fields: Fields) -> "SplitProgress":
        """From JSON.

        Raises:
            InputError: it is damaged.
        """
        split = fields.text("split")
        shards = [ShardRecord.read(each, shard_name(split, number)) for number, each in enumerate(fields.objects("shards"))]
        try:
            lines = frozenset(bytes.fromhex(start) for start in fields.content["lines"])
        except (KeyError, TypeError, ValueError) as error:
            raise fields.refusal("the line starts are missing") from error
        at = fields.count("piece"), fields.count("offset"), fields.count("size")
        return cls(split, *at, bool(fields.count("begins")), fields.count("documents"), shards, lines)

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        shards = [{"file": shard_name(self.split, number), **asdict(shard)} for number, shard in enumerate(self.shards)]
        lines = sorted(start.hex() for start in self.lines)
        return {**asdict(self), "begins": int(self.begins), "shards": shards, "lines": lines}


@dataclass
class Progress:
    """How far a store is.

    Args:
        encoder: the fingerprint of the tokenizer.
        shard_tokens: tokens in a shard.
        done: the splits that are finished.
        now: the split that is not.
    """

    encoder: str
    shard_tokens: int
    done: dict[str, SplitRecord] = field(default_factory=dict)
    now: SplitProgress | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no tokens have been made."""
        return not self.done and (self.now is None or not self.now.shards)

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """From its file.

        Raises:
            InputError: it is damaged.
        """
        fields = Fields.of_file(path)
        shard_tokens, done = fields.count("shard_tokens"), fields.object("done")
        splits: Sequence[str] = [split for split in SPLITS if split in done.content]
        return cls(
            fields.sha256("encoder"),
            shard_tokens,
            {split: SplitRecord.read(done.object(split), split, shard_tokens) for split in splits},
            SplitProgress.read(fields.object("now")) if fields.content.get("now") else None,
        )

    def write(self, path: Path) -> None:
        """Write it to its file."""
        done = {split: record.as_json(split) for split, record in self.done.items()}
        now = self.now.as_json() if self.now else None
        write_atomically(
            path, json.dumps({"encoder": self.encoder, "shard_tokens": self.shard_tokens, "done": done, "now": now})
        )
