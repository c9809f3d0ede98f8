import ast
import sysconfig
from pathlib import Path

import pytest

from ngpt_lab.data.corpora import line_starts
from ngpt_lab.data.docstrings import library_code, library_prose, separate
from ngpt_lab.data.standard_library import held_out, read_modules

SOURCE = '''"""A module's own.

Two lines."""
import os

class Thing:
    """What it is; naïve."""

    def one(self): "of one line"

    async def two(self):
        r"""é""" ; x = "no docstring"
        """nor this"""
        return x
'''


def test_code_and_docstrings_are_taken_apart():
    code, prose = separate(SOURCE)
    assert prose.decode().split("\n\n") == ["A module's own.", "Two lines.", "What it is; naïve.", "of one line", "é"]
    assert code.decode().splitlines() == [
        "import os",
        "",
        "class Thing:",
        "",
        "    def one(self): ",
        "",
        "    async def two(self):",
        '         ; x = "no docstring"',
        '        """nor this"""',
        "        return x",
    ]


def test_code_that_had_no_docstring_stays_as_it_is():
    plain = "def f(x):\n    y = 'a'\n    return y\n"
    assert separate(plain) == (plain.encode(), b"")


def test_what_python_cannot_parse_is_refused():
    with pytest.raises(SyntaxError):
        separate("print 'of another Python'")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_neither_corpus_trains_on_text_that_the_other_is_evaluated_on(split):
    for trained, evaluated in ((library_code(), library_prose()), (library_prose(), library_code())):
        starts = set(line_starts(evaluated.splits[split].numpy().tobytes()))
        seen = starts.intersection(line_starts(trained.train.numpy().tobytes()))
        assert len(seen) / len(starts) < 0.01


def test_both_corpora_hold_out_the_modules_that_the_whole_source_holds_out():
    modules = read_modules(Path(sysconfig.get_path("stdlib")))
    for names, split in zip(held_out(modules), ("validation", "test"), strict=True):
        code, prose = (corpus().splits[split].numpy().tobytes() for corpus in (library_code, library_prose))
        name = max(names, key=lambda name: len(modules[name]))
        documents = [document.decode() for document in modules[name].split(b"\0") if document]
        parts = [separate(document) for document in documents]
        assert all(part[0] in code and part[1] in prose for part in parts)
        assert len(code) + len(prose) < sum(len(modules[name]) for name in names)


def test_there_are_docstrings_enough_to_train_and_to_evaluate():
    sizes = {name: len(stream) for name, stream in library_prose().splits.items()}
    assert sizes["train"] > 1_000_000
    assert min(sizes["validation"], sizes["test"]) > 40_000
    assert library_code().fingerprint != library_prose().fingerprint


def test_the_library_without_docstrings_has_none():
    text = library_code().validation.numpy().tobytes()
    documents = [document.decode() for document in text.split(b"\0")]
    parsed = 0
    for document in documents:
        try:
            tree = ast.parse(document)
        except SyntaxError:  # a body that was a docstring alone is gone
            continue
        parsed += 1
        assert ast.get_docstring(tree) is None
    assert parsed > len(documents) / 2
