import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngpt_lab.data.sources.source import SPLITS

SEPARATOR = "<|endoftext|>"
DOCUMENTS = [
    "naïve café, 日本語 of two\r\nlines\r\n",
    "\n\n blank \n\n\nlines\n",
    'quotes "and" commas, {"json": "\\n"}',
    "\ufeffa mark, \x85 and \u2028 that are no line ends",
    "\U0001f642" * 300_000,
    "a line of a long document\n" * 60_000,
    *(f"document {k} of many\n" * 7 for k in range(40)),
]
CONTENT = {
    ".txt": lambda texts: SEPARATOR.join(texts).encode(),
    ".jsonl": lambda texts: b"".join(json.dumps({"id": 1, "text": text}).encode() + b"\n" for text in texts),
    ".csv": lambda texts: as_csv(texts),
    ".parquet": lambda texts: as_parquet(texts),
    ".arrow": lambda texts: as_arrow(texts, pa.ipc.new_stream),
}
COMPRESS = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
}


def table(texts):
    return pa.table({"id": list(range(len(texts))), "text": texts})


def as_csv(texts):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
    return file.getvalue().encode()


def as_parquet(texts):
    sink = io.BytesIO()
    pq.write_table(table(texts), sink, row_group_size=20)
    return sink.getvalue()


def as_arrow(texts, new):
    sink = io.BytesIO()
    with new(sink, table(texts).schema) as writer:
        writer.write_table(table(texts), max_chunksize=20)
    return sink.getvalue()


def splits_of(source):
    return {split: list(source.pieces(split)) for split in SPLITS}


def joined(pieces):
    """Documents put together again."""
    documents, parts = [], []
    for text, ends in pieces:
        parts.append(text)
        if ends:
            documents.append(b"".join(parts))
            parts = []
    assert not parts
    return documents


@pytest.fixture
def kit():
    """What the tests of all sources share."""
    return KIT


class KIT:
    separator = SEPARATOR
    documents = DOCUMENTS
    content = CONTENT
    compress = COMPRESS
    as_arrow = staticmethod(as_arrow)
    table = staticmethod(table)
    splits_of = staticmethod(splits_of)
    joined = staticmethod(joined)
