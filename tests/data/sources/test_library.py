import ast
import hashlib
import sysconfig
from itertools import groupby
from pathlib import Path

import pytest

from ngpt_lab.data.corpora import line_starts
from ngpt_lab.data.sources.docstrings import separate
from ngpt_lab.data.sources.library import LibraryCode, LibraryProse, StandardLibrary
from ngpt_lab.data.sources.modules import (
    HELD_OUT_BYTES,
    LARGEST_HELD_OUT,
    held_out,
    join_modules,
    library_splits,
    module_of,
    read_documents,
)
from ngpt_lab.data.sources.source import SPLITS
from ngpt_lab.errors import InputError


@pytest.fixture(scope="module")
def documents():
    return read_documents(Path(sysconfig.get_path("stdlib")))


@pytest.fixture(scope="module")
def modules(documents):
    return join_modules(documents)


def stream(source, split):
    return b"".join(text + b"\0" * ends for text, ends in source.pieces(split))


def shared_share(train, held_out_text):
    starts = list(line_starts(held_out_text))
    seen = set(starts).intersection(line_starts(train))
    return sum(start in seen for start in starts) / len(starts)


def test_no_module_stands_in_two_splits_and_none_is_lost(documents, modules):
    validation, test = held_out(modules)
    assert not validation & test
    library = StandardLibrary()
    assert sum(len(stream(library, split)) for split in SPLITS) == sum(map(len, modules.values()))
    assert stream(library, "test") == b"".join(modules[name] for name in sorted(test))
    assert sum(ends for split in SPLITS for _, ends in library.pieces(split)) == len(documents)


def test_held_out_splits_are_large_and_none_is_one_giant_module(modules):
    for names in held_out(modules):
        sizes = [len(modules[name]) for name in names]
        assert HELD_OUT_BYTES <= sum(sizes) < HELD_OUT_BYTES + LARGEST_HELD_OUT
        assert max(sizes) <= LARGEST_HELD_OUT


def test_the_split_depends_on_names_and_texts_and_not_on_their_order(modules):
    assert held_out(dict(reversed(modules.items()))) == held_out(modules)


def test_a_module_that_another_version_adds_to_one_held_out_split_leaves_the_other_as_it_is(modules):
    validation, test = held_out(modules)
    names = sorted((f"new{k}" for k in range(1000)), key=lambda name: hashlib.sha256(name.encode()).digest())
    text = b"x = 1\n" * 10_000
    with_first, with_last = held_out({names[0]: text, **modules}), held_out({names[-1]: text, **modules})
    assert with_first[0] == validation
    assert with_first[1] - test == {names[0]}
    assert with_last[0] - validation == {names[-1]}
    assert with_last[1] == test


def test_less_than_2_percent_of_held_out_line_starts_stand_in_training_and_a_split_by_file_would_leak_5_times_that(documents):
    train = stream(StandardLibrary(), "train")
    by_module = max(shared_share(train, stream(StandardLibrary(), split)) for split in ("validation", "test"))
    assert by_module < 0.02
    order = sorted(documents, key=lambda path: hashlib.sha256(path.encode()).digest())
    first, rest = order[: len(order) // 20], order[len(order) // 20 :]
    by_file = shared_share(*(b"\0".join(documents[path] for path in paths) for paths in (rest, first)))
    assert by_file > 5 * by_module


def test_tests_and_what_the_machine_wrote_are_left_out(tmp_path):
    kept = ["json/decoder.py", "ast.py", "unittest/case.py"]
    left_out = ["test/a.py", "json/tests/a.py", "idlelib/idle_test/a.py", "site-packages/a.py", "config-3/a.py"]
    for path in [*kept, *left_out, "_sysconfigdata__linux.py", "ast.txt"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 1\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "empty.py").write_bytes(b"")
    assert list(read_documents(tmp_path)) == sorted(kept)


def test_an_interpreter_without_source_is_refused_by_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(InputError, match=rf"{tmp_path} .*data\.source"):
        library_splits.__wrapped__()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_neither_code_nor_prose_trains_on_text_that_the_other_is_evaluated_on(split):
    for trained, evaluated in ((LibraryCode(), LibraryProse()), (LibraryProse(), LibraryCode())):
        starts = set(line_starts(stream(evaluated, split)))
        seen = starts.intersection(line_starts(stream(trained, "train")))
        assert len(seen) / len(starts) < 0.01


@pytest.mark.parametrize("split", ["validation", "test"])
def test_code_and_prose_hold_out_the_modules_that_the_whole_source_holds_out(split):
    code, prose = (set(stream(source, split).split(b"\0")) for source in (LibraryCode(), LibraryProse()))
    separated = [separate(document.decode()) for document in library_splits()[split].values()]
    assert code == {b"", *(part[0] for part in separated)}
    assert prose == {b"", *(part[1] for part in separated)}


def test_documents_stand_by_module_and_then_by_path():
    for documents in library_splits().values():
        names = [name for name, _ in groupby(documents, key=module_of)]
        assert names == sorted(set(names))


def test_there_are_docstrings_enough_to_train_and_to_evaluate():
    sizes = {split: len(stream(LibraryProse(), split)) for split in SPLITS}
    assert sizes["train"] > 1_000_000
    assert min(sizes.values()) > 40_000


def test_the_library_without_docstrings_has_none():
    documents = stream(LibraryCode(), "validation").split(b"\0")
    parsed = 0
    for document in documents:
        try:
            tree = ast.parse(document.decode())
        except SyntaxError:  # a body that was a docstring alone is gone
            continue
        parsed += 1
        assert ast.get_docstring(tree) is None
    assert parsed > len(documents) / 2


def test_the_three_texts_are_known_by_their_kind_and_the_version_of_python():
    library, code, prose = StandardLibrary(), LibraryCode(), LibraryProse()
    assert len({str(source.spec()) for source in (library, code, prose)}) == 3
    assert [source.name.removesuffix(library.name) for source in (code, prose)] == ["code of the ", "docstrings of the "]
    assert library.changed(library.state()) is None
    assert library.changed({"python": "2.7"}) == f"Python was 2.7 and is {library.python}"
