"""The built-in corpus: the source of the running interpreter's own standard library, split by module."""

import hashlib
import os
import platform
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

from ngpt_lab.data.corpora import Corpus, join, line_starts, stream
from ngpt_lab.errors import InputError

LEFT_OUT = {"test", "tests", "idle_test", "_bundled", "__pycache__", "lib-dynload", "site-packages", "dist-packages"}
# Written when Python is built or installed: they differ between machines that run the same version.
OF_THE_MACHINE = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")

HELD_OUT_BYTES = 500_000
LARGEST_HELD_OUT = HELD_OUT_BYTES // 5
LARGEST_COPIED_SHARE = 0.01


@cache
def standard_library() -> Corpus:
    """The standard library's source without its tests, about 12 MB; read once in a process."""
    root = Path(sysconfig.get_path("stdlib"))
    modules = read_modules(root)
    validation, test = held_out(modules)
    if min(_size(modules, validation), _size(modules, test)) < HELD_OUT_BYTES:
        raise InputError(
            f"{root} does not hold the source of Python's standard library, which is the built-in corpus: "
            "name text files with --data.files instead"
        )
    version = platform.python_version()
    return Corpus(
        source=f"standard library of Python {version}",
        train=stream(join_modules(modules, modules.keys() - validation - test)),
        validation=stream(join_modules(modules, validation)),
        test=stream(join_modules(modules, test)),
        python=version,
    )


def read_documents(root: Path) -> dict[str, bytes]:
    """The library's source files by their path below `root`, sorted; empty ones and those not in UTF-8 are left out."""
    documents = {path.relative_to(root).as_posix(): path.read_bytes() for path in _source_files(root)}
    return {path: documents[path] for path in sorted(documents) if documents[path] and _is_utf8(documents[path])}


def read_modules(root: Path) -> dict[str, bytes]:
    """The text of each top-level module (a file or a package) by its name."""
    documents: dict[str, list[bytes]] = defaultdict(list)
    for path, document in read_documents(root).items():
        documents[module_of(path)].append(document)
    return {name: join(parts) for name, parts in documents.items()}


def module_of(path: str) -> str:
    """The top-level module that a file of the library belongs to."""
    return path.split("/")[0].removesuffix(".py")


def join_modules(modules: Mapping[str, bytes], names: Collection[str]) -> bytes:
    """The texts of the modules of these names, in the order of the names."""
    return b"".join(modules[name] for name in sorted(names))


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


def _fill(order: list[str], modules: Mapping[str, bytes]) -> set[str]:
    names: set[str] = set()
    for name in order:
        if _size(modules, names) >= HELD_OUT_BYTES:
            break
        names.add(name)
    return names


def _size(modules: Mapping[str, bytes], names: set[str]) -> int:
    return sum(len(modules[name]) for name in names)
