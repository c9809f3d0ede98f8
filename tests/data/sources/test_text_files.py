import csv
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngpt_lab.data.sources.pieces import PIECE_BYTES, measure
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.errors import InputError


@pytest.mark.parametrize("compression", ["", ".gz", ".zst", ".xz"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".parquet", ".arrow"])
def test_every_format_and_compression_gives_the_same_pieces(tmp_path, kit, kind, compression):
    path = tmp_path / f"corpus{kind}{compression}"
    path.write_bytes(kit.compress[compression](kit.content[kind](kit.documents)))
    pieces = list(TextFiles(str(path), validation=str(path), test=str(path), separator=kit.separator).pieces("train"))
    assert kit.joined(pieces) == [document.encode() for document in kit.documents]
    assert max(len(piece.text) for piece in pieces) <= PIECE_BYTES


def test_a_cut_by_bytes_gives_the_same_splits_in_every_format(tmp_path, kit):
    found = []
    for kind, content in kit.content.items():
        path = tmp_path / f"corpus{kind}"
        path.write_bytes(content(kit.documents))
        found.append(kit.splits_of(TextFiles(str(path), separator=kit.separator)))
    assert all(splits == found[0] for splits in found)
    assert all(found[0].values())


def test_the_arrow_file_format_gives_what_the_stream_format_gives(tmp_path, kit):
    (tmp_path / "a.arrow").write_bytes(kit.as_arrow(kit.documents, pa.ipc.new_file))
    (tmp_path / "b.arrow").write_bytes(kit.as_arrow(kit.documents, pa.ipc.new_stream))
    a, b = (kit.splits_of(TextFiles(str(tmp_path / name))) for name in ("a.arrow", "b.arrow"))
    assert a == b


@pytest.mark.parametrize("kind", [pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_read_from_every_type_that_holds_it(tmp_path, kit, kind):
    texts = ["one", None, "", "naïve", "one"]
    plain = pa.table({"text": pa.array(texts, kind.value_type if isinstance(kind, pa.DictionaryType) else kind)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, pa.schema([("text", kind)])) as writer:
        writer.write_table(plain.cast(pa.schema([("text", kind)])))
    found = TextFiles(str(tmp_path / "*.arrow"), validation=str(tmp_path / "*.arrow"))
    assert kit.joined(found.pieces("train")) == [b"one", "naïve".encode(), b"one"]


def test_null_and_empty_texts_and_blank_lines_are_no_documents(tmp_path, kit):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n\n{"text": ""}\r\n  \n{"text": "a"}')
    (tmp_path / "b.csv").write_text('\ufefftext,n\n"",1\n\nb,2\n', encoding="utf-8")
    pq.write_table(pa.table({"text": [None, "", "c"]}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("||d||")
    source = TextFiles([str(tmp_path / "*")], validation=str(tmp_path / "d.txt"), separator="|")
    assert kit.joined(source.pieces("train")) == [b"a", b"b", b"c", b"d"]


def test_documents_stand_in_path_order_whatever_the_patterns_and_go_into_folders(tmp_path, kit):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.txt", "a[1].txt", "in/deep/c.txt"):
        (tmp_path / name).write_text(name)
    patterns = [str(tmp_path / "b.*"), str(tmp_path / "**" / "*.txt"), str(tmp_path / "a[1].txt")]
    source = TextFiles(patterns, validation=str(tmp_path / "b.txt"))
    assert kit.joined(source.pieces("train")) == [b"a[1].txt", b"b.txt", b"in/deep/c.txt"]
    assert source.name == "4 text files"
    assert TextFiles(str(tmp_path / "a[1].txt")).name == "a[1].txt"


def test_a_file_is_cut_90_5_5_by_bytes_as_enwik8_is(tmp_path, kit):
    path = tmp_path / "enwik8.gz"
    text = b"0123456789" * 1000
    path.write_bytes(kit.compress[".gz"](text))
    splits = {split: kit.joined(pieces) for split, pieces in kit.splits_of(TextFiles(str(path))).items()}
    assert splits == {"train": [text[:9000]], "validation": [text[9000:9500]], "test": [text[9500:]]}


def test_splits_of_several_files_are_those_of_their_documents_joined(tmp_path, kit):
    texts = [b"a" * 137, b"b" * 11, b"c" * 5, b"d" * 22, b"e" * 3]
    for name, text in zip("vwxyz", texts, strict=True):
        (tmp_path / f"{name}.txt").write_bytes(text)
    stream = b"".join(text + b"\0" for text in texts)
    validation, test = len(stream) * 18 // 20, len(stream) * 19 // 20
    source = TextFiles(str(tmp_path / "*"))
    for split, part in {
        "train": stream[:validation],
        "validation": stream[validation:test],
        "test": stream[test:],
    }.items():
        assert kit.joined(source.pieces(split)) == [document for document in part.split(b"\0") if document]


@pytest.mark.parametrize(
    ("own", "sizes"),
    [
        (("validation",), {"train": 101, "validation": 50, "test": 51}),
        (("test",), {"train": 95, "validation": 6, "test": 101}),
        (("validation", "test"), {"train": 101, "validation": 101, "test": 101}),
    ],
)
def test_splits_with_files_of_their_own_are_used_and_the_others_cut_from_them(tmp_path, kit, own, sizes):
    for name in ("train", *own):
        (tmp_path / f"{name}.txt").write_text(name[0] * 100)
    splits = kit.splits_of(TextFiles(str(tmp_path / "train.txt"), **{name: str(tmp_path / f"{name}.txt") for name in own}))
    # Where a split ends inside a document, the document gets an end of its own there.
    inside = {("validation", "validation"), ("test", "train")}
    measured = {split: measure(pieces) - ((own[0], split) in inside and len(own) == 1) for split, pieces in splits.items()}
    assert measured == sizes
    assert set(splits["test"][0].text) == {ord("v" if own == ("validation",) else "t")}


def test_pieces_can_be_taken_up_anywhere(tmp_path, kit):
    (tmp_path / "a.csv").write_bytes(kit.content[".csv"](kit.documents))
    source = TextFiles(str(tmp_path / "a.csv"))
    pieces = list(source.pieces("train"))
    assert all(list(source.pieces("train", skip)) == pieces[skip:] for skip in (1, 5, len(pieces), len(pieces) + 1))


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv"])
def test_bytes_that_are_not_utf8_are_replaced_when_asked(tmp_path, kit, kind):
    path = tmp_path / f"a{kind}"
    path.write_bytes(kit.content[kind](["caf@ au lait"]).replace(b"@", b"\xe9") if kind != ".txt" else b"caf\xe9 au lait")
    source = TextFiles(str(path), validation=str(path), errors="replace")
    assert kit.joined(source.pieces("train")) == ["caf\ufffd au lait".encode()]


def test_a_row_of_a_table_and_half_a_character_in_json_are_replaced_when_asked(tmp_path, kit):
    pq.write_table(pa.table({"text": pa.array([b"caf\xe9"], pa.binary())}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "\\ud83d\\ude42 \\ud83d"}')
    source = TextFiles(str(tmp_path / "*"), validation=str(tmp_path / "*"), errors="replace")
    assert kit.joined(source.pieces("train")) == ["caf\ufffd".encode(), "\U0001f642 \ufffd".encode()]


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".parquet", ".arrow"])
def test_a_zero_byte_is_replaced_when_asked(tmp_path, kit, kind):
    path = tmp_path / f"a{kind}"
    path.write_bytes(kit.content[kind](["caf\0 au\0 lait"]))
    source = TextFiles(str(path), validation=str(path), errors="replace")
    assert kit.joined(source.pieces("train")) == ["caf\ufffd au\ufffd lait".encode()]


def broken(kit):
    """Every bad file: its name, its content, and what is said of it."""
    good = {kind: content(["some text", "and more text"] * 50) for kind, content in kit.content.items()}
    arrow_file = kit.as_arrow(["some text"] * 50, pa.ipc.new_file)
    numbers = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [1, 2]}), numbers)
    latin = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array([b"a", b"caf\xe9"], pa.binary())}), latin)
    yield from (
        ("empty.txt", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("empty.parquet", b"", "is empty"),
        ("empty.arrow", b"", "is empty"),
        ("empty.gz", kit.compress[".gz"](b""), "is empty"),
        ("empty.txt.zst", kit.compress[".zst"](b""), "is empty"),
        ("empty.txt.xz", kit.compress[".xz"](b""), "is empty"),
        ("page.html", b"text", "unknown kind"),
        ("page.html.gz", b"text", "unknown kind"),
        ("page", b"text", "unknown kind"),
        ("latin.txt", b"caf\xe9 au lait", "is not text: byte 3 is not UTF-8"),
        ("latin.txt", b"a" * 2**18 + b"caf\xe9", "is not text: byte 262147 is not UTF-8"),
        ("across.txt", b"a" * (2**18 - 1) + b"\xc3caf", "is not text: byte 262143 is not UTF-8"),
        ("cut.txt", "é".encode()[:1], "is not text: byte 0 is not UTF-8"),
        ("zero.txt", b"te\0xt", "is not text: byte 2 is zero"),
        ("zero.txt", b"a" * 2**18 + b"te\0xt", "is not text: byte 262146 is zero"),
        ("binary.gz", kit.compress[".gz"](b"\xff\xfe"), "byte 0 is not UTF-8"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', "byte 27 is not UTF-8"),
        ("latin.csv", b"text\ncaf\xe9\n", "byte 8 is not UTF-8"),
        ("latin.parquet", latin.getvalue().to_pybytes(), "row 2, is not text: byte 3 is not UTF-8"),
        ("half.jsonl", b'{"text": "a \\ud800"}', "line 1, is not text: character 2 is half of a surrogate pair"),
        ("zero.jsonl", b'{"text": "a"}\n{"text": "b\\u0000"}', "line 2, is not text: byte 1 of it is zero"),
        ("zero.csv", b"text\na\0b\n", "line 2, is not text: byte 1 of it is zero"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": "b\n', "line 2, is not JSON"),
        ("deep.jsonl", b"[" * 10**5, "line 1, is not JSON"),
        ("array.jsonl", b'["text"]', "line 1, is not a JSON object"),
        ("keys.jsonl", b'{"id": 1, "content": "a"}', "line 1, has no column 'text': there is 'id', 'content'"),
        ("number.jsonl", b'{"text": "a"}\n{"text": 3}', "line 2, has no text in 'text' but 3"),
        ("names.csv", b"id,content\n1,a\n", "has no column 'text': there is 'id', 'content'"),
        ("short.csv", b"id,text\n1,a\n2\n", "line 3, has 1 values"),
        ("quote.csv", b'text\na\n"b\n', "line 3, is not CSV"),
        ("names.parquet", pq_bytes(pa.table({"id": [1]})), "has no column 'text': there is 'id'"),
        ("number.parquet", numbers.getvalue().to_pybytes(), "has no text in 'text' but int64"),
        ("half.parquet", good[".parquet"][:-9], "is not a whole parquet file"),
        ("pages.parquet", good[".parquet"][:4] + b"?" * 200 + good[".parquet"][204:], "is not a whole parquet file"),
        ("garbage.parquet", b"garbage" * 99, "is not a whole parquet file"),
        ("half.arrow", good[".arrow"][:-9], "is not a whole arrow file"),
        ("middle.arrow", good[".arrow"][:900], "is not a whole arrow file"),
        ("half_file.arrow", arrow_file[:-9], "is not a whole arrow file"),
        ("garbage.arrow", b"garbage" * 99 + b"\xff\xff\xff\xff\0\0\0\0", "is not a whole arrow file"),
        ("half.parquet.gz", kit.compress[".gz"](good[".parquet"])[:-9], "is not a whole gzip file"),
    )
    for compression, kind in {".gz": "gzip", ".zst": "zst", ".xz": "xz"}.items():
        packed = kit.compress[compression](os.urandom(3000).hex().encode())
        yield f"half.txt{compression}", packed[: len(packed) // 2], f"is not a whole {kind} file"
        yield f"last.txt{compression}", packed[:-1], f"is not a whole {kind} file"
        yield f"flipped.txt{compression}", packed[:1000] + bytes(b ^ 255 for b in packed[1000:]), f"is not a whole {kind} file"
        yield f"plain.jsonl{compression}", b'{"text": "a"}', f"is not a whole {kind} file"


def pq_bytes(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_every_broken_file_is_refused_in_one_sentence_that_names_it(tmp_path, kit):
    csv.field_size_limit(100)  # which reading has to raise
    cases = list(broken(kit))
    for name, content, complaint in cases:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as refused:
            list(TextFiles(str(path), validation=str(path)).pieces("train"))
        message = str(refused.value)
        assert str(path) in message
        assert complaint in message
        assert "\n" not in message
    assert len(cases) > 50


def test_missing_files_folders_and_settings_without_sense_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    for arguments, complaint in [
        ({"files": str(tmp_path / "missing.txt")}, rf"no file matches {tmp_path}/missing\.txt \(files\)"),
        ({"files": str(tmp_path / "a.txt"), "test": str(tmp_path / "*.jsonl")}, r"no file matches .*jsonl \(test\)"),
        ({"files": str(tmp_path)}, f"{tmp_path} .*is a folder"),
        ({"files": []}, "files is an empty list"),
        ({"files": "s3://bucket/a.txt"}, "s3://bucket/a.txt cannot be read"),
        ({"files": str(tmp_path / "a.txt"), "separator": ""}, "separator is empty"),
    ]:
        with pytest.raises(InputError, match=complaint):
            list(TextFiles(**arguments).pieces("train"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.arrow", "a.txt.zst"])
def test_a_file_that_may_not_be_read_is_refused_by_name(tmp_path, monkeypatch, name):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / name).write_text("text")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=f"{name} cannot be read: Permission denied"):
        list(TextFiles(str(tmp_path / name), validation=str(tmp_path / name)).pieces("train"))


def test_a_touched_file_is_unchanged_and_changed_new_and_lost_ones_are_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    source = TextFiles(str(tmp_path / "*.txt"))
    state = source.state()
    os.utime(path, ns=(1, 1))
    assert source.changed(state) is None
    path.write_text("behind")
    os.utime(path, ns=(2, 2))
    assert source.changed(state) == f"{path} has changed"
    path.write_text("longer than before")
    assert source.changed(state) == f"{path} has changed"
    path.write_text("before")
    (tmp_path / "b.txt").write_text("new")
    assert source.changed(state) == f"{tmp_path / 'b.txt'} is new"
    path.unlink()
    assert source.changed(state) == f"{path} is gone"
    assert source.changed({"files": 3}) == "no files are recorded for it"


def test_the_spec_says_what_is_read_wherever_the_program_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    spec = TextFiles("a.txt").spec()
    assert spec == TextFiles(str(tmp_path / "a.txt")).spec()
    assert spec != TextFiles("a.txt", column="content").spec()


@pytest.mark.parametrize("name", ["a.txt", "a.txt.zst", "a.jsonl.gz", "a.parquet"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, name):
    path = tmp_path / name
    write_large(path)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    largest, size = 0, 0
    for piece in TextFiles(str(path), validation=str(path)).pieces("train"):
        largest = max(largest, pa.total_allocated_bytes() - before)
        size += len(piece.text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 100_000_000
    assert peak + largest < 25_000_000


def write_large(path: Path):
    line = b"a line of a hundred characters that says nothing and ends with a line end, as lines of text do....\r\n"
    assert len(line) == 100
    if path.suffix == ".parquet":
        table = pa.table({"text": [(line * 10_000).decode()] * 10})
        with pq.ParquetWriter(path, table.schema) as writer:
            for _ in range(10):
                writer.write_table(table)
        return
    block = line * 10_000 if ".txt" in path.name else b'{"text": "' + b"a" * 1_000_000 + b'"}\n'
    with pa.output_stream(path, compression={".gz": "gzip", ".zst": "zstd"}.get(path.suffix)) as file:
        for _ in range(100):
            file.write(block)
