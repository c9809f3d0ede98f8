"""The bytes of a file, decompressed, from this machine or over the network, a block at a time."""

import gzip
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from ngpt_lab.data.sources.addresses import form, is_remote
from ngpt_lab.errors import InputError

BLOCK_BYTES = 2**18
KINDS = {".gz": "gzip", ".zst": "zst", ".xz": "xz"}
SECONDS_OF_SILENCE = 60  # that a server may take to connect or between two blocks


def blocks(address: str) -> Iterator[bytes]:
    """The decompressed bytes of a file.

    Raises:
        InputError: it cannot be read, is empty, or is not whole.
    """
    with complaints(address):
        with _opened(address) as raw:
            stream = _decompressed(raw, form(address).compression)
            block = first = stream.read(BLOCK_BYTES)
            while block:
                yield block
                block = stream.read(BLOCK_BYTES)
        if not first:
            raise InputError(f"{address} is empty: leave it out or put text into it")


@contextmanager
def table_file(address: str) -> Iterator[Any]:
    """A file that pyarrow may seek in: memory-mapped, or a nameless temporary copy if it is remote or compressed."""
    import pyarrow as pa

    with complaints(address):
        if not is_remote(address) and not form(address).compression:
            # Opened by Python first, whose errors say what is wrong.
            with open(address, "rb") as file:
                empty = not file.read(1)
            if empty:
                raise InputError(f"{address} is empty: leave it out or put text into it")
            with pa.memory_map(address) as mapped:
                yield mapped
            return
        with tempfile.TemporaryFile() as copy:
            for block in blocks(address):
                copy.write(block)
            copy.seek(0)
            yield pa.PythonFile(copy, mode="r")


@contextmanager
def complaints(address: str) -> Iterator[None]:
    """Errors of reading and decompressing as one sentence that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise InputError(f"{address} is not a whole {KINDS.get(form(address).compression)} file: {error}") from error
    except OSError as error:
        # pyarrow's decompressor gives its errors no number.
        if error.errno is None and form(address).compression == ".zst" and type(error) is OSError:
            raise InputError(f"{address} is not a whole zst file: {error}") from error
        raise InputError(f"{address} cannot be read: {reason(error)}") from error
    except network_errors(address) as error:
        raise InputError(f"{address} cannot be read: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why a file cannot be read: the system's or the server's words."""
    # fsspec says that a file is not found, whatever a server answered, and keeps the answer as the cause.
    cause = (isinstance(error, FileNotFoundError) and error.__cause__) or error
    if status := getattr(cause, "status", None):
        return f"the server answers {status} {getattr(cause, 'message', '')}".strip()
    if isinstance(cause, TimeoutError):
        return "the server does not answer"
    return getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__


def network_errors(address: str) -> tuple[type[Exception], ...]:
    """What reading this address raises besides OSError."""
    if not is_remote(address):
        return ()
    import aiohttp

    return (aiohttp.ClientError,)


def web() -> Any:
    """fsspec's reader of web addresses; a long file may take its time, a silent server may not."""
    import aiohttp
    import fsspec

    silence = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS_OF_SILENCE, sock_read=SECONDS_OF_SILENCE)
    return fsspec.filesystem("http", client_kwargs={"timeout": silence})


@contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    # A block size of 0 asks for one stream, which every server offers.
    with web().open(address, "rb", block_size=0) if is_remote(address) else open(address, "rb") as file:
        yield file


def _decompressed(raw: IO[bytes], compression: str) -> Any:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".xz":
        return lzma.LZMAFile(raw)
    if compression == ".zst":
        import pyarrow as pa

        # zstandard's own reader takes a file that was cut short for a whole one.
        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return raw
