"""Whatever is wrong with what a user brings: one sentence, exit code 2, nothing lost and nothing carried out."""

import csv
import errno
import gzip
import hashlib
import http.server
import io
import json
import logging
import lzma
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ngpt_lab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
LINES = [f"{n} bottles of beer on the wall, take one down and pass it around\n" for n in range(300)]
TEXT = "".join(LINES)
RETRIED = "; the checkpoint before is tried"


@dataclass(frozen=True)
class There:
    """Where a case happens: a folder with a trained run and the tokens it was trained on, copied for the case alone.

    Args:
        folder: everything that the case may touch; `run` and `store` in it are the copies.
        text: what the tokens are made from.
        patch: undone after the case.
        server: the address of a web server that has nothing.
    """

    folder: Path
    text: Path
    patch: pytest.MonkeyPatch
    server: str

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def checkpoint(self, step: int) -> Path:
        return self.folder / "run" / "checkpoints" / f"step-{step:06d}.ckpt"

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


Prepare = Callable[[There], list[str]]


def fit(there: There, folder: str = "new", *words: str) -> list[str]:
    """The command that trained the run, in another folder and with other settings."""
    files = [CONFIGS / name for name in ("base.yaml", "model/ngpt.yaml", "size/debug.yaml")]
    chosen = [word for file in files for word in ("-c", str(file))]
    where = f"--trainer.default_root_dir={there.folder / folder}"
    chosen += [where, "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    chosen += ["--trainer.max_steps=2", "--checkpoint.every_n_train_steps=1", "--data.eval_windows=8", "--data.processes=1"]
    return ["fit", *chosen, *source(there.text), f"--data.store={there.store}", *words]


def source(files: Path | str, kind: str = "TextFiles", argument: str = "files") -> list[str]:
    return [f"--data.source={kind}", f"--data.source.{argument}={files}"]


def tokenize(*words: str) -> list[str]:
    return ["tokenize", "--data=ngpt_lab.data.TextDataModule", "--processes=1", *words]


# What is brought


def text(name: str, content: bytes | Callable[[], bytes], *words: str) -> Prepare:
    """A file of text, tokenized."""

    def prepare(there: There) -> list[str]:
        path = there.file(name, content() if callable(content) else content)
        return tokenize(*source(path), *words)

    return prepare


def named(*words: str) -> Prepare:
    """Nothing but arguments, {there} in which is the case's folder, {text} its text and {server} the server's address."""
    return lambda there: [
        word.format(there=there.folder, text=there.text, server=there.server, closed=closed_port()) for word in words
    ]


def hub(*words: str, change: Callable[[bytes], bytes] = bytes) -> Prepare:
    """A folder in the hub's layout with two configurations."""
    card = "---\nconfigs:\n- config_name: one\n  data_files: one/*\n- config_name: two\n  data_files: two/*\n---\n"

    def prepare(there: There) -> list[str]:
        for name in ("one", "two"):
            there.file(f"hub/{name}/train-00000-of-00001.parquet", change(as_parquet()))
        there.file("hub/README.md", card.encode())
        there.patch.setattr("datasets.config.HF_DATASETS_CACHE", there.folder.parent / "datasets")
        return tokenize(*source(there.folder / "hub", "HubDataset", "path"), *words)

    return prepare


def asked(*words: str) -> Prepare:
    """The text tokenized, with more arguments."""
    return named(*tokenize(*source("{text}"), *words))


def tokenized(*words: str) -> Prepare:
    """Something else tokenized."""
    return named(*tokenize(*words))


def fits(*words: str) -> Prepare:
    """The same training elsewhere, with more arguments."""
    return lambda there: fit(there, "new", *words)


def code(prepare: Prepare) -> Prepare:
    """The same with a config file that holds code."""

    def prepared(there: There) -> list[str]:
        held = f"data: !!python/object/apply:os.mkdir [{there.folder}/carried out]"
        return [*prepare(there), "-c", str(there.file("code.yaml", held.encode()))]

    return prepared


def tokenizer(content: Any, separator: str = "<|endoftext|>") -> Prepare:
    """A tokenizer.json."""

    def prepare(there: There) -> list[str]:
        path = there.file("t/tokenizer.json", content if isinstance(content, bytes) else json.dumps(content).encode())
        words = ["--data.tokenizer=TokenizerFile", f"--data.tokenizer.path={path}", f"--data.tokenizer.separator={separator}"]
        return tokenize(*source(there.text), *words)

    return prepare


def kept(change: Callable[[Path], object], *words: str) -> Prepare:
    """Finished tokens in which something is changed, asked for again."""

    def prepare(there: There) -> list[str]:
        change(there.store)
        return tokenize(*source(there.text), f"--data.store={there.store}", *words)

    return prepare


def described(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change what a store's JSON file says."""

    def edit(store: Path) -> None:
        content = json.loads((store / name).read_text())
        change(content)
        (store / name).write_text(json.dumps(content))

    return edit


def manifest(change: Callable[[dict[str, Any]], object]) -> Prepare:
    """Finished tokens whose manifest says something else."""
    return kept(described("manifest.json", change))


def unfinished(change: Callable[[Path], object]) -> Prepare:
    """Tokens that were broken off in which something is changed, gone on with."""

    def prepare(there: There) -> list[str]:
        words = tokenize(*source(there.text), f"--data.store={there.folder / 'half'}", "--shard_tokens=1000")
        with pytest.MonkeyPatch.context() as patch:
            fails_at(patch, "replace", "train-00003.bin")
            with pytest.raises(SystemExit):
                main(words)
        change(there.folder / "half.partial")
        return words

    return prepare


def nano(ids: list[int], *words: str) -> Prepare:
    """A folder of nanoGPT, to train on."""

    def prepare(there: There) -> list[str]:
        for name in ("train.bin", "val.bin"):
            there.file(f"nano/{name}", np.array(ids * 500, "<u2").tobytes())
        given = fit(there)
        at = next(index for index, word in enumerate(given) if word.startswith("--data.source="))
        return [*given[:at], *source(there.folder / "nano", "NanoGPTFiles", "folder"), "--data.store=null", *words]

    return prepare


def goes_on(change: Callable[[There], object], *words: str, at: str = "last") -> Prepare:
    """The trained run, in which something is changed, gone on with."""

    def prepare(there: There) -> list[str]:
        change(there)
        return fit(there, "run", "--trainer.max_steps=4", f"--ckpt_path={at.format(there=there.folder)}", *words)

    return prepare


def from_newest(change: Callable[[There], object]) -> Prepare:
    """The trained run gone on with from its newest checkpoint by name."""
    return goes_on(change, at="{there}/run/checkpoints/step-000002.ckpt")


def evaluated(change: Callable[[There], object]) -> Prepare:
    """The trained run's newest checkpoint evaluated."""

    def prepare(there: There) -> list[str]:
        change(there)
        words = [word for word in fit(there, "run")[1:] if "checkpoint." not in word]
        return ["validate", *words, f"--ckpt_path={there.checkpoint(2)}"]

    return prepare


def untouched(there: There) -> None:
    """Nothing is changed."""


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[There], object]:
    """Change what the newest checkpoint holds."""

    def edit(there: There) -> None:
        there.checkpoint(1).unlink()
        path = there.checkpoint(2)
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)

    return edit


def newest(content: Callable[[There], bytes]) -> Callable[[There], object]:
    """Put something else in place of every checkpoint."""
    return lambda there: [there.checkpoint(step).write_bytes(content(there)) for step in (1, 2)]


def fails_at(patch: pytest.MonkeyPatch, call: str, name: str, number: int = errno.ENOSPC) -> None:
    """A call of the system fails for what has `name` in its path or file."""
    before = getattr(os, call)

    def failing(what: Any, *more: Any, **named: Any) -> Any:
        paths = [f"/proc/self/fd/{what}" if isinstance(what, int) else what, *more]
        if any(name in (os.readlink(path) if "/proc/" in str(path) else str(path)) for path in paths):
            raise OSError(number, os.strerror(number))
        return before(what, *more, **named)

    patch.setattr(os, call, failing)


def failing(call: str, name: str, number: int, prepare: Prepare) -> Prepare:
    """The same, while a call of the system fails."""

    def prepared(there: There) -> list[str]:
        words = prepare(there)
        fails_at(there.patch, call, name, number)
        return words

    return prepared


class Bomb:
    """What makes a folder where it is unpickled."""

    def __init__(self, there: There) -> None:
        self.folder = there.folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "carried out"),)


def pickled(there: There) -> bytes:
    return pickle.dumps(Bomb(there))


def saved(there: There) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {}, "callbacks": Bomb(there)}, file)
    return file.getvalue()


def inflating(there: There) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps([1]))
        archive.writestr("bomb/data/0", bytes(30_000_000))
    return file.getvalue()


def as_jsonl() -> bytes:
    return "".join(json.dumps({"text": line, "number": 3}) + "\n" for line in LINES).encode()


def as_csv() -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["number", "text"], *enumerate(LINES)])
    return file.getvalue().encode()


def table() -> pa.Table:
    return pa.table({"number": list(range(len(LINES))), "text": LINES})


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(), sink)
    return sink.getvalue()


def as_arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table())
    return sink.getvalue()


def zst() -> bytes:
    return pa.compress(TEXT.encode(), codec="zstd", asbytes=True)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut(name: str) -> Callable[[Path], object]:
    """Cut a file of a folder short."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def other_text(there: There) -> list[str]:
    path = there.file("other.txt", TEXT.replace("beer", "wine").encode())
    return fit(there, "run", "--trainer.max_steps=4", "--ckpt_path=last", *source(path), "--data.store=null")


def changed_text(there: There) -> list[str]:
    path = there.file("mine.txt", TEXT.encode())
    words = tokenize(*source(path))
    main(words)
    path.write_text(TEXT.replace("beer", "wine"))
    return words


def changed_tokenizer(there: There) -> list[str]:
    words = tokenize(*source(there.text), *BPE, f"--data.store={there.folder / 'bpe'}")
    main(words)
    path = there.folder / "bpe" / "tokenizer.json"
    path.write_text(path.read_text().replace('"b"', '"c"', 1))
    return words


def saved_elsewhere(there: There) -> list[str]:
    there.file("saved/state.json", b'{"_data_files": [{"filename": "../run/run.json"}]}')
    return tokenize(*source(there.folder / "saved", "SavedDataset", "folder"))


def hub_code(there: There) -> list[str]:
    """A dataset that is a program."""
    there.file("hub/hub.py", f"import os\nos.mkdir({str(there.folder / 'carried out')!r})\n".encode())
    return tokenize(*source(there.folder / "hub", "HubDataset", "path"))


def large(there: There) -> list[str]:
    words = tokenizer(b"")(there)
    os.truncate(there.folder / "t" / "tokenizer.json", 2**28 + 1)  # holes take no room
    return words


def in_a_mixture(weights: str) -> Prepare:
    part = '{"class_path": "ngpt_lab.data.TextFiles", "init_args": {"files": "%s"}}'
    return lambda there: tokenize(
        "--data.source=Mixture",
        f"--data.source.sources=[{', '.join([part % there.text] * 2)}]",
        f"--data.source.weights={weights}",
    )


WORD_LEVEL = {
    "model": {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, "a": 1}, "unk_token": "<|endoftext|>"},
    "pre_tokenizer": {"type": "Whitespace"},
}
BPE = ("--data.tokenizer=BPE", "--data.tokenizer.vocab_size=300")

# Name, what the sentence holds, what is brought.
CASES: list[tuple[str, str, Prepare]] = [
    # Columns, splits, configurations, names
    ("jsonl-column", "line 1, has no column 'content'", text("a.jsonl", as_jsonl, "--data.source.column=content")),
    (
        "csv-column",
        "a.csv has no column 'content': there is 'number', 'text'",
        text("a.csv", as_csv, "--data.source.column=content"),
    ),
    ("parquet-column", "a.parquet has no column 'content'", text("a.parquet", as_parquet, "--data.source.column=content")),
    ("parquet-no-text", "no text in 'number' but int64", text("a.parquet", as_parquet, "--data.source.column=number")),
    ("jsonl-no-text", "line 1, has no text in 'number' but 3", text("a.jsonl", as_jsonl, "--data.source.column=number")),
    ("hub-column", "split 'train' has no column 'content'", hub("--data.source.name=one", "--data.source.column=content")),
    ("hub-split", "hub (one) cannot be read: Bad split: nope", hub("--data.source.name=one", "--data.source.train=nope")),
    ("hub-config", "hub (three) cannot be read", hub("--data.source.name=three")),
    ("hub-no-config", "Config name is missing", hub()),
    ("hub-cut", "hub (one) cannot be read", hub("--data.source.name=one", change=half)),
    ("hub-name", "../../etc is neither a folder nor the name", tokenized(*source("../../etc", "HubDataset", "path"))),
    ("hub-spaces", "a name is neither a folder", tokenized(*source("a name", "HubDataset", "path"))),
    ("saved-folder", "not a dataset made by save_to_disk", tokenized(*source("{there}/run", "SavedDataset", "folder"))),
    ("saved-elsewhere", "names files that are not .arrow files of its folder", saved_elsewhere),
    ("hub-code", "hub", hub_code),
    ("no-file", "no file matches", tokenized(*source("{there}/*.none.txt"))),
    ("a-folder", "is a folder: name its files", tokenized(*source("{there}/run"))),
    ("kind", "a.pdf is of an unknown kind", text("a.pdf", b"%PDF")),
    ("address", "a.txt cannot be read: the server answers 404", tokenized(*source("{server}/a.txt"))),
    ("no-server", "a.parquet cannot be read: ", tokenized(*source("http://127.0.0.1:{closed}/a.parquet"))),
    ("protocol", "s3://bucket/a.txt cannot be read", tokenized(*source("s3://bucket/a.txt"))),
    # Files that are not whole, and no text
    ("cut-gz", "a.txt.gz is not a whole gzip file", text("a.txt.gz", lambda: half(gzip.compress(TEXT.encode())))),
    ("cut-zst", "a.txt.zst is not a whole zst file", text("a.txt.zst", lambda: half(zst()))),
    ("cut-xz", "a.txt.xz is not a whole xz file", text("a.txt.xz", lambda: half(lzma.compress(TEXT.encode())))),
    ("cut-parquet", "a.parquet is not a whole parquet file", text("a.parquet", lambda: half(as_parquet()))),
    ("cut-arrow", "a.arrow is not a whole arrow file", text("a.arrow", lambda: half(as_arrow()))),
    ("no-gz", "a.txt.gz is not a whole gzip file", text("a.txt.gz", TEXT.encode())),
    ("json", "a.jsonl, line 3, is not JSON", text("a.jsonl", b'{"text": "a"}\n' * 2 + b'{"text": \n')),
    ("no-object", "a.jsonl, line 2, is not a JSON object", text("a.jsonl", b'{"text": "a"}\n[1]\n')),
    ("deep-json", "a.jsonl, line 1, is not JSON", text("a.jsonl", b"[" * 200_000)),
    ("utf-8", "a.txt is not text: byte 1201 is not UTF-8", text("a.txt", b"a" * 1201 + b"\xff" + b"a" * 3000)),
    ("utf-8-jsonl", "a.jsonl is not text: byte 24 is not UTF-8", text("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n')),
    ("zero", "a.txt is not text: byte 1201 is zero", text("a.txt", b"a" * 1201 + b"\0" + b"a" * 3000)),
    ("empty", "a.txt is empty", text("a.txt", b"")),
    ("weights", "weights has 3 numbers for 2 sources", in_a_mixture("[1, 2, 3]")),
    ("weight", "each must be a number above 0", in_a_mixture("[1, -1]")),
    # Settings
    ("processes", "processes is 0", asked("--processes=0")),
    ("shard-tokens", "shard_tokens is 0", asked("--shard_tokens=0")),
    ("class", "NoSuchFiles", tokenized("--data.source=NoSuchFiles")),
    (
        "other-class",
        "source: subprocess.Popen does not fit there: name a subclass of Source",
        named(*tokenize("--data.source=subprocess.Popen")),
    ),
    ("tokenizer-class", "NoSuch", asked("--data.tokenizer=NoSuch")),
    ("no-config", "none.yaml cannot be read", named("tokenize", "-c", "{there}/none.yaml")),
    ("no-data", "no data is named: give a config file of fit with -c", named("tokenize")),
    ("code-in-config", "could not determine a constructor for the tag", code(lambda there: ["tokenize"])),
    ("code-in-fit", "could not determine a constructor for the tag", code(fit)),
    ("small-vocabulary", "vocab_size of BPE is 3", asked("--data.tokenizer=BPE", "--data.tokenizer.vocab_size=3")),
    # Tokenizers
    ("no-tokenizer", "none.json cannot be read", asked("--data.tokenizer=TokenizerFile", "--data.tokenizer.path=none.json")),
    ("separator", "has no token '<end>'", tokenizer(WORD_LEVEL, "<end>")),
    ("tokenizer-type", "tokenizer.json is not a tokenizer", tokenizer([1, 2])),
    (
        "tokenizer-vocabulary",
        "tokenizer.json is not a tokenizer",
        tokenizer({"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}}),
    ),
    ("tokenizer-added", "tokenizer.json is not a tokenizer", tokenizer({**WORD_LEVEL, "added_tokens": 3})),
    (
        "tokenizer-ids",
        "so most ids would have no token",
        tokenizer({"model": {**WORD_LEVEL["model"], "vocab": {"<|endoftext|>": 2**31}}}),
    ),
    ("tokenizer-code", "tokenizer.json is not a tokenizer", lambda there: tokenizer(pickled(there))(there)),
    ("tokenizer-deep", "tokenizer.json is not a tokenizer", tokenizer(b"[" * 200_000)),
    ("tokenizer-large", "more than a tokenizer needs", large),
    # Stores
    ("other-tokenizer", "holds tokens made by Bytes, and this run asks for BPE", kept(lambda store: None, *BPE)),
    ("other-source", "holds tokens of words.txt, and this run reads", kept(lambda store: None, "--data.source.separator=x")),
    ("tokenizer-changed", "tokenizer.json is not the tokenizer that made the tokens", changed_tokenizer),
    ("source-changed", "mine.txt has changed since it was tokenized", changed_text),
    ("shard-cut", "train-00000.bin has", kept(cut("train-00000.bin"))),
    ("shard-gone", "train-00000.bin cannot be read", kept(lambda store: (store / "train-00000.bin").unlink())),
    (
        "shard-changed",
        "train-00000.bin is damaged",
        kept(lambda store: (store / "train-00000.bin").write_bytes(bytes((store / "train-00000.bin").stat().st_size))),
    ),
    ("starts-cut", "train.starts has", kept(lambda store: (store / "train.starts").write_bytes(b""))),
    (
        "manifest-path",
        "and should be 'train-00000.bin'",
        manifest(lambda all: all["splits"]["train"]["shards"][0].update(file="../../run/run.json")),
    ),
    (
        "manifest-count",
        "do not add up to its 9007199254740992 tokens",
        manifest(lambda all: all["splits"]["train"].update(tokens=2**53)),
    ),
    (
        "manifest-shards",
        "do not add up to its 9007199254740992 tokens",
        manifest(lambda all: all["splits"]["train"].update(tokens=2**53) or all.update(shard_tokens=1)),
    ),
    ("manifest-huge", "shard_tokens is 1000000", manifest(lambda all: all.update(shard_tokens=10**300))),
    ("manifest-negative", "which counts nothing", manifest(lambda all: all["splits"]["test"].update(documents=-1))),
    ("manifest-types", "splits is not an object", manifest(lambda all: all.update(splits=[1]))),
    ("manifest-format", "format is '2' and should be 1", manifest(lambda all: all.update(format=2))),
    (
        "manifest-list",
        "manifest.json is damaged: it holds no object",
        kept(lambda store: (store / "manifest.json").write_text("[]")),
    ),
    (
        "manifest-deep",
        "manifest.json is damaged: it is not JSON",
        kept(lambda store: (store / "manifest.json").write_text("[" * 200_000)),
    ),
    ("manifest-cut", "manifest.json is damaged: it is not JSON", kept(cut("manifest.json"))),
    ("source-cut", "source.json is damaged: it is not JSON", kept(cut("source.json"))),
    ("source-types", "state is not an object", kept(described("source.json", lambda all: all.update(state=3)))),
    (
        "source-files",
        "has changed since it was tokenized",
        kept(described("source.json", lambda all: all.update(state={"files": [1]}))),
    ),
    ("progress-cut", "progress.json is damaged: it is not JSON", unfinished(cut("progress.json"))),
    ("progress-types", "progress.json is damaged", unfinished(described("progress.json", lambda all: all.update(now=[1])))),
    ("half-shard", "half.partial to tokenize it anew", unfinished(cut("store/train-00001.bin"))),
    ("other-folder", "run is there already and holds no tokens", asked("--data.store={there}/run")),
    ("no-store", "holds no tokens (no manifest.json)", tokenized(*source("{there}/run", "TokenStore", "folder"))),
    ("below-a-file", "run/run.json cannot be written: File exists", asked("--data.store={there}/run/run.json/below")),
    ("full-disk", "cannot be written: No space left on device", failing("fsync", "train-00000.bin", errno.ENOSPC, asked())),
    (
        "full-disk-at-the-end",
        "cannot be written: No space left on device",
        failing("replace", "manifest.json", errno.ENOSPC, asked()),
    ),
    ("read-only", "cannot be written: Read-only file system", failing("mkdir", "tokens", errno.EROFS, asked())),
    # Runs
    ("vocabulary", "dims.vocab_size is 256, but the data has 300 token ids", fits("--data.store=null", *BPE)),
    (
        "nano-ids",
        "holds id 300 at token 2, and vocab_size is 256",
        nano([1, 2, 300], "--data.source.vocab_size=256", "--data.source.separator=0"),
    ),
    ("nano-vocabulary", "dims.vocab_size is 256, but the data has 50257 token ids", nano([1, 2, 300])),
    (
        "nano-cut",
        "which is no whole number of two or more 16-bit ids",
        lambda there: [nano([1, 2, 3])(there), there.file("nano/val.bin", b"abc")][0],
    ),
    ("window", "--data.seq_len 5000 is too long for the data: validation of words.txt has", fits("--data.seq_len=5000")),
    ("shard-cut-fit", "train-00000.bin has", lambda there: [cut("train-00000.bin")(there.store), fit(there)][1]),
    ("run-in-use", "run is in use", lambda there: fit(there, "run")),
    ("run-is-a-file", "is in use", lambda there: fit(there, "run/run.json")),
    ("run-below-a-file", "cannot be written: Not a directory", lambda there: fit(there, "run/run.json/below")),
    ("run-read-only", "cannot be written: Read-only file system", failing("mkdir", "new", errno.EROFS, fit)),
    (
        "run-full-disk",
        "step-000002.ckpt cannot be written: No space left",
        failing("fsync", "step-000002.ckpt", errno.ENOSPC, fit),
    ),
    (
        "run-full-disk-metrics",
        "metrics.jsonl cannot be written: No space left",
        failing("fsync", "metrics.jsonl", errno.ENOSPC, fit),
    ),
    (
        "run-full-disk-going-on",
        "step-000003.ckpt cannot be written: No space left",
        failing("replace", "step-000003.ckpt", errno.ENOSPC, goes_on(untouched)),
    ),
    # Checkpoints
    ("last-of-nothing", "there is no checkpoint in", fits("--ckpt_path=last")),
    ("no-checkpoint", "there is no checkpoint none.ckpt", fits("--ckpt_path=none.ckpt")),
    ("all-broken", "none of the 2 checkpoints in", goes_on(newest(lambda there: b"half a fi"))),
    ("all-cut", "none of the 2 checkpoints in", goes_on(newest(lambda there: half(there.checkpoint(2).read_bytes())))),
    ("code", "step-000002.ckpt is not a checkpoint that can be read", from_newest(newest(pickled))),
    ("code-in-archive", "is not opened", from_newest(newest(saved))),
    ("inflating", "not stored as torch stores them", from_newest(newest(inflating))),
    ("code-evaluated", "is not opened", evaluated(newest(saved))),
    ("list", "it holds a list", from_newest(lambda there: torch.save([1], there.checkpoint(2)))),
    ("no-weights", "has no state_dict", from_newest(edited(lambda all: all.pop("state_dict")))),
    ("step", "its global_step is a str", from_newest(edited(lambda all: all.update(global_step="2")))),
    (
        "moments",
        "its optimizer's state is not of this model's",
        goes_on(edited(lambda all: all["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)))),
    ),
    ("loops", "cannot be continued from: it has no 'fit_loop'", goes_on(edited(lambda all: all["loops"].clear()))),
    ("settings", "settings are not JSON", goes_on(edited(lambda all: all.update(settings="{")))),
    ("other-seed", "seed_everything 0 and this run has 1", goes_on(untouched, "--seed_everything=1")),
    ("other-width", "dims.d_model 64 and this run has 128", goes_on(untouched, "--model.backbone.dims.d_model=128")),
    ("other-batch", "data.batch_size 8 and this run has 4", goes_on(untouched, "--data.batch_size=4")),
    ("other-model", "this run has ngpt_lab.models.Nemotron", goes_on(untouched, "--model.backbone=Nemotron")),
    ("other-corpus", "the checkpoint was trained with data.fingerprint", other_text),
    ("fewer-steps", "beyond trainer.max_steps 1", goes_on(untouched, "--trainer.max_steps=1")),
]


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its SHA-256, and every link with where it leads."""
    return {
        str(path.relative_to(folder)): f"to {path.readlink()}" if path.is_symlink() else sha256(path)
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def _streams_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's log handler keeps the standard error of the first test of a process, which is closed by now."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = str(tmp_path_factory.mktemp("public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *all: Handler(*all, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A run of two steps, and its tokens."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "words.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        main(fit(There(folder, folder / "words.txt", patch, server), "run"))
    return folder


@pytest.fixture
def there(made: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    for name in ("run", "store"):
        shutil.copytree(made / name, tmp_path / "there" / name, symlinks=True)
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "there" / "cache"))
    monkeypatch.chdir(tmp_path)
    return There(tmp_path / "there", made / "words.txt", monkeypatch, server)


# What these make is what the next attempt goes on with, or a record of how far it came.
GROWS = {
    "full-disk": ("cache/tokens/words.txt",),
    "full-disk-at-the-end": ("cache/tokens/words.txt",),
    "vocabulary": ("cache/tokens/words.txt",),
    "nano-vocabulary": ("cache/tokens/nano",),
    "other-corpus": ("cache/tokens/other.txt",),
    "run-full-disk": ("new/",),
    "run-full-disk-going-on": ("run/run.json", "run/metrics.jsonl", "run/config.resume-1.yaml"),
    "run-full-disk-metrics": ("new/",),
}


def check_sentence(told: str, expected: str) -> None:
    assert "Traceback" not in told
    sentences = [line for line in told.splitlines() if line.startswith("ngpt-lab: ") and RETRIED not in line]
    assert len(sentences) == 1, told
    assert told.strip().splitlines()[-1] == sentences[0]
    print(sentences[0])
    assert expected in sentences[0]
    assert len(sentences[0]) < 700


@pytest.mark.parametrize(("expected", "prepare"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input_is_one_sentence_and_loses_nothing(
    expected: str, prepare: Prepare, there: There, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    words = prepare(there)
    before = contents(there.folder)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    there.patch.undo()
    assert stop.value.code == 2
    check_sentence(capfd.readouterr().err, expected)
    check_kept(before, there, GROWS.get(request.node.callspec.id, ()))


def check_kept(before: dict[str, str], there: There, grows: tuple[str, ...]) -> None:
    """That nothing was lost or carried out, and that nothing is new but below the folders that may grow."""
    after = contents(there.folder)
    assert not (there.folder / "carried out").exists()
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in differ if not name.startswith(grows)} == set()
    assert not [name for name in after if name.endswith((".tmp", ".lock"))]


@pytest.mark.parametrize("name", ["cut-gz", "code-in-archive"])
def test_a_process_of_its_own_says_the_same(name: str, there: There) -> None:
    expected, prepare = next(case[1:] for case in CASES if case[0] == name)
    words = prepare(there)
    before = contents(there.folder)
    ended = subprocess.run([sys.executable, "-m", "ngpt_lab", *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    check_sentence(ended.stderr, expected)
    check_kept(before, there, ())


def test_what_is_not_utf_8_is_replaced_where_that_is_asked_for(there: There) -> None:
    path = there.file("a.txt", b"a" * 1201 + b"\xff" + b"a" * 3000)
    main(tokenize(*source(path), "--data.source.errors=replace", f"--data.store={there.folder / 'new'}"))
    shards = [(there.folder / "new" / f"{split}-00000.bin").read_bytes() for split in ("train", "validation", "test")]
    assert b"".join(shards).replace(b"\0", b"") == ("a" * 1201 + "\ufffd" + "a" * 3000).encode()


def test_what_was_wrong_can_be_set_right_without_removing_anything(there: There) -> None:
    path = there.file("a.jsonl", as_jsonl())
    words = tokenize(*source(path), f"--data.store={there.folder / 'new'}")
    with pytest.raises(SystemExit):
        main([*words, "--data.source.column=content", *BPE])
    main(words)
    made = contents(there.folder / "new")
    # Killed before the first shard, with another column and tokenizer.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ngpt_lab.data.store.building.write_split", killed)
        with pytest.raises(Killed):
            main([*words[:-1], f"--data.store={there.folder / 'again'}", *BPE])
    assert (there.folder / "again.partial" / "store" / "tokenizer.json").is_file()
    main([*words[:-1], f"--data.store={there.folder / 'again'}"])
    assert contents(there.folder / "again") == made


class Killed(BaseException):
    """What ends the work at once."""


def killed(*_: Any) -> None:
    raise Killed


def test_a_run_that_was_refused_goes_on_once_that_is_set_right(there: There, made: Path) -> None:
    path = there.checkpoint(2)
    whole = path.read_bytes()
    before = (there.folder / "run" / "run.json").read_text()
    words = goes_on(edited(lambda all: all["loops"].clear()))(there)
    with pytest.raises(SystemExit):
        main(words)
    assert (there.folder / "run" / "run.json").read_text() == before
    path.write_bytes(whole)
    main(words)
    record = json.loads((there.folder / "run" / "run.json").read_text())
    assert (record["status"], [again["step"] for again in record["resumed"]]) == ("finished", [2])
