"""A corpus of the user's own text files."""

import glob
import gzip
import os
import zlib
from functools import lru_cache
from pathlib import Path

from ngpt_lab.data.corpora import Corpus, join, stream
from ngpt_lab.errors import InputError

HELD_OUT_SHARE = 20  # validation and test are each 1/20 of the bytes


def local_files(patterns: list[str]) -> Corpus:
    """The `.txt` and `.gz` (gzipped text) files that match any of the glob patterns; `**` goes into folders.

    Documents stand in the order of their absolute paths, each followed by a zero byte, and the whole is cut into
    90% training, 5% validation and 5% test, by bytes. A file that did not change is read once in a process.
    """
    paths = sorted({path for pattern in patterns for path in _matches(pattern)})
    if not paths:
        raise InputError("--data.files is an empty list: name at least one .txt or .gz file, or leave it out")
    return _read(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths))


@lru_cache(maxsize=4)
def _read(versions: tuple[tuple[Path, int, int], ...]) -> Corpus:
    text = join(_document(path) for path, _, _ in versions)
    held_out = len(text) // HELD_OUT_SHARE
    validation, test = len(text) - 2 * held_out, len(text) - held_out
    return Corpus(
        source=versions[0][0].name if len(versions) == 1 else f"{len(versions)} text files",
        train=stream(text[:validation]),
        validation=stream(text[validation:test]),
        test=stream(text[test:]),
    )


def _matches(pattern: str) -> list[Path]:
    pattern = os.path.abspath(os.path.expanduser(pattern))
    # A name may hold brackets, which mean something else to glob.
    paths = [Path(name) for name in ([pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True))]
    if not paths:
        raise InputError(f"no file matches {pattern} (--data.files): give the path of a .txt or .gz file, or a pattern")
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} (--data.files) is a folder: name its files, as in {path}/*.txt")
        if path.suffix not in (".txt", ".gz"):
            raise InputError(f"{path} (--data.files) is neither .txt nor .gz: only text and gzipped text are read")
    return paths


def _document(path: Path) -> bytes:
    try:
        document = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        document.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: byte {error.start} is not UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not document:
        raise InputError(f"{path} is empty: take it out of --data.files or put text into it")
    if (zero := document.find(b"\0")) >= 0:
        raise InputError(f"{path} is not text: byte {zero} is zero")
    return document
