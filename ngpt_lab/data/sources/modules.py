"""The modules of the running Python's standard library, and which of them are held out."""

import hashlib
import os
import platform
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from ngpt_lab.data.corpora import line_starts
from ngpt_lab.errors import InputError

LEFT_OUT = {"test", "tests", "idle_test", "_bundled", "__pycache__", "lib-dynload", "site-packages", "dist-packages"}
# Written when Python is built or installed: they differ between machines that run the same version.
OF_THE_MACHINE = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")

HELD_OUT_BYTES = 500_000
LARGEST_HELD_OUT = HELD_OUT_BYTES // 5
LARGEST_COPIED_SHARE = 0.01


@cache
def library_splits() -> Mapping[str, Mapping[str, bytes]]:
    """The library's source files by path in each split, in order: by module, then by path; read once in a process.

    Raises:
        InputError: the interpreter has no source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents = read_documents(root)
    modules = join_modules(documents)
    validation, test = held_out(modules)
    if min(_size(modules, validation), _size(modules, test)) < HELD_OUT_BYTES:
        raise InputError(
            f"{root} does not hold the source of Python's standard library, which is the built-in corpus: "
            "name text files with data.source instead"
        )
    names = {"train": modules.keys() - validation - test, "validation": validation, "test": test}
    paths = sorted(documents, key=lambda path: (module_of(path), path))
    return {split: {path: documents[path] for path in paths if module_of(path) in names[split]} for split in names}


def library_name() -> str:
    """What the library is called in records."""
    return f"standard library of Python {platform.python_version()}"


def read_documents(root: Path) -> dict[str, bytes]:
    """The library's source files by their path below `root`, sorted; empty ones and those not in UTF-8 are left out."""
    documents = {path.relative_to(root).as_posix(): path.read_bytes() for path in _source_files(root)}
    return {path: documents[path] for path in sorted(documents) if documents[path] and _is_utf8(documents[path])}


def join_modules(documents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The text of each top-level module (a file or a package) by its name, each of its files followed by a zero byte."""
    modules: dict[str, list[bytes]] = defaultdict(list)
    for path, document in documents.items():
        modules[module_of(path)].append(document + b"\0")
    return {name: b"".join(parts) for name, parts in modules.items()}


def module_of(path: str) -> str:
    """The top-level module that a file of the library belongs to."""
    return path.split("/")[0].removesuffix(".py")


def held_out(modules: Mapping[str, bytes]) -> tuple[set[str], set[str]]:
    """The names of validation's and of test's modules.

    Modules are ordered by a hash of their name; test is filled from one end and validation from the other, so that a
    module added by another version of Python moves few others. Two kinds always train: a module so large that it
    would be a fifth of a split, and one of which more than 1% of the line starts stand in another module too. The
    library has near copies (bz2 and lzma, ntpath and posixpath), and held-out text that was trained on measures
    memory; so the share of a split that also stands in training is bounded whatever the version.
    """
    copied = copied_shares(modules)
    order = sorted(
        (name for name in modules if len(modules[name]) <= LARGEST_HELD_OUT and copied[name] <= LARGEST_COPIED_SHARE),
        key=lambda name: hashlib.sha256(name.encode()).digest(),
    )
    test = _fill(order, modules)
    validation = _fill([name for name in reversed(order) if name not in test], modules)
    return validation, test


def copied_shares(modules: Mapping[str, bytes]) -> dict[str, float]:
    """For each module, the share of its line starts that are line starts of another module too."""
    starts = {name: list(line_starts(text)) for name, text in modules.items()}
    holders = Counter(start for of_one in starts.values() for start in set(of_one))
    return {name: sum(holders[start] > 1 for start in of_one) / max(len(of_one), 1) for name, of_one in starts.items()}


def _source_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(OF_THE_MACHINE)]
        wanted = (name for name in files if name.endswith(".py") and not name.startswith(OF_THE_MACHINE))
        yield from (Path(folder, name) for name in wanted)


def _is_utf8(document: bytes) -> bool:
    try:
        document.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fill(order: Iterable[str], modules: Mapping[str, bytes]) -> set[str]:
    names: set[str] = set()
    for name in order:
        if _size(modules, names) >= HELD_OUT_BYTES:
            break
        names.add(name)
    return names


def _size(modules: Mapping[str, bytes], names: Iterable[str]) -> int:
    return sum(len(modules[name]) for name in names)
