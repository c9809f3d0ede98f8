import hashlib
import sysconfig
from pathlib import Path

import pytest

from ngpt_lab.data.corpora import join, line_starts, shared_share, stream
from ngpt_lab.data.standard_library import (
    HELD_OUT_BYTES,
    LARGEST_HELD_OUT,
    held_out,
    read_documents,
    read_modules,
    standard_library,
)
from ngpt_lab.errors import InputError

ROOT = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def modules():
    return read_modules(ROOT)


def test_no_module_stands_in_two_splits_and_none_is_lost(modules):
    validation, test = held_out(modules)
    corpus = standard_library()
    assert not validation & test
    assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == sum(map(len, modules.values()))
    assert b"".join(modules[name] for name in sorted(test)) == corpus.test.numpy().tobytes()


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


def test_less_than_2_percent_of_held_out_line_starts_stand_in_training():
    assert max(standard_library().shared_share.values()) < 0.02


def test_a_split_by_file_would_leak_five_times_as_much():
    documents = read_documents(ROOT)
    order = sorted(documents, key=lambda path: hashlib.sha256(path.encode()).digest())
    twentieth = len(order) // 20
    by_file = shared_share(
        stream(join(documents[path] for path in order[twentieth:])),
        stream(join(documents[path] for path in order[:twentieth])),
    )
    assert by_file > 5 * max(standard_library().shared_share.values())


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
    with pytest.raises(InputError, match=rf"{tmp_path} .*--data\.files"):
        standard_library.__wrapped__()


def test_line_starts_run_on_over_line_ends_and_stop_where_fewer_than_64_bytes_are_left():
    assert list(line_starts(b"ab\n" + b"c" * 63)) == [b"ab\n" + b"c" * 61]
    assert list(line_starts(b"ab\n" + b"c" * 64)) == [b"ab\n" + b"c" * 61, b"c" * 64]


def test_the_shared_share_counts_line_starts_of_training_and_nothing_else():
    copied, own, inside = b"a" * 64 + b"\n", b"b" * 64 + b"\n", b"c" * 64 + b"\n"
    train = stream(copied + b" " + inside)
    assert shared_share(train, stream(copied + own + inside + own)) == pytest.approx(1 / 4)
    assert shared_share(train, stream(b"short")) == 0
