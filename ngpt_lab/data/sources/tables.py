"""Documents in a column of Arrow tables: .parquet and .arrow files, and what datasets are read as."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ngpt_lab.data.sources.checks import Errors, checked_document
from ngpt_lab.data.sources.opening import table_file
from ngpt_lab.data.sources.pieces import Piece
from ngpt_lab.data.sources.rows import check_column
from ngpt_lab.errors import InputError

ROWS = 16  # read at once: a document may be a book
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def parquet_documents(address: str, column: str, errors: Errors) -> Iterator[Piece]:
    """The texts of a .parquet file's column; null and empty ones are left out.

    Raises:
        InputError: names the file, and the row if it is one.
    """
    import pyarrow.parquet as pq

    with table_file(address) as file, _complaints(address, "parquet"):
        table = pq.ParquetFile(file, buffer_size=2**20)
        check_text_column(table.schema_arrow, column, address)
        yield from column_documents(table.iter_batches(ROWS, columns=[column]), column, address, errors)


def arrow_documents(address: str, column: str, errors: Errors) -> Iterator[Piece]:
    """The texts of an .arrow file's column, be it in Arrow's stream or file format; see `parquet_documents`."""
    import pyarrow as pa

    with table_file(address) as file, _complaints(address, "arrow"):
        if file.read(6) == b"ARROW1":
            table = pa.ipc.open_file(file)
            batches = (table.get_batch(k) for k in range(table.num_record_batches))
        else:
            _check_end(file, address)
            table = batches = pa.ipc.open_stream(file)
        check_text_column(table.schema, column, address)
        yield from column_documents(batches, column, address, errors)


def check_text_column(schema: Any, column: str, where: str) -> None:
    """Refuse a column that is not there or holds no text.

    Raises:
        InputError: names the columns that are there.
    """
    import pyarrow.types as kinds

    check_column(column, schema.names, where)
    kind = schema.field(column).type
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    texts = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_binary, kinds.is_large_binary)
    if not any(is_text(kind) for is_text in (*texts, kinds.is_null)):
        raise InputError(f"{where} has no text in {column!r} but {kind}: name a column of text")


def column_documents(batches: Iterable[Any], column: str, where: str, errors: Errors) -> Iterator[Piece]:
    """The texts of a column of Arrow record batches or tables; see `parquet_documents`."""
    return (Piece(text, True) for text in column_texts(batches, column, where, errors) if text)


def column_texts(batches: Iterable[Any], column: str, where: str, errors: Errors) -> Iterator[bytes]:
    """The text of each row of Arrow record batches or tables, null as an empty one; see `parquet_documents`."""
    import pyarrow as pa

    row = 0
    for batch in batches:
        # As bytes, so that what is not UTF-8 is found here; large ones, so that no sum of lengths is too large.
        for value in batch.column(column).cast(pa.large_binary()):
            row += 1
            yield checked_document(value.as_py() or b"", f"{where}, row {row},", errors)


def _check_end(file: Any, address: str) -> None:
    # A reader takes a stream that was cut between two messages for a whole one.
    file.seek(max(file.size() - len(END_OF_STREAM), 0))
    if file.read() != END_OF_STREAM:
        raise InputError(f"{address} is not a whole arrow file: it has no end mark")
    file.seek(0)


@contextmanager
def _complaints(address: str, kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{address} is not a whole {kind} file: {' '.join(str(error).split())}") from error
