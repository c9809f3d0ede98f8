import pytest

from ngpt_lab.data.sources.docstrings import separate

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
