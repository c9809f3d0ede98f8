"""Several modules as one file."""

import ast
import io
import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import check_imports

from ngpt_lab.interop import single_file
from ngpt_lab.interop.remote_code import CLASSES, remote_code
from ngpt_lab.interop.single_file import CannotMergeError, Module, closure, merged, names_of

TOP = "ngpt_lab.hf.modeling"


def comments(text: str) -> list[str]:
    return [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT]


def test_the_classes_of_transformers_fit_into_one_file_that_needs_nothing_of_this_package(tmp_path: Path):
    text = remote_code()
    tree = ast.parse(text)
    named = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in ast.walk(tree) if is_import(node)
    }
    foreign = {name.partition(".")[0] for name in named}
    assert {"torch", "transformers", "huggingface_hub"} <= foreign
    assert not foreign & {"ngpt_lab", "lightning", "jsonargparse", "safetensors"}
    (tmp_path / "modeling_ngpt.py").write_text(text)
    assert check_imports(tmp_path / "modeling_ngpt.py") == []
    assert set(CLASSES.values()) <= {name for node in tree.body for name in names_of(node)}


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_one_file_says_all_that_the_modules_say_each_after_what_it_needs():
    modules = closure(TOP)
    names = [module.name for module in modules]
    assert names[-1] == TOP
    assert all(names.index(needed) < names.index(module.name) for module in modules for needed in module.needs)
    text = merged(TOP, "All of it.")
    found = {ast.dump(node) for node in ast.parse(text).body}
    for module in modules:
        statements = [node for node in module.tree.body[1:] if not is_import(node)]
        assert {ast.dump(node) for node in statements} <= found
        assert set(comments(module.body)) <= set(comments(text))
        for line in (ast.get_docstring(module.tree) or "").splitlines():
            assert f"# {line}".rstrip() in text


def test_the_file_is_the_same_every_time():
    assert remote_code() == remote_code()
    assert remote_code().isascii()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts modules of a made package in the place of ours."""
    monkeypatch.setattr(single_file, "ROOT", tmp_path)
    monkeypatch.setattr(single_file, "PACKAGE", "made")

    def write(**modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    return write


ONE = '''"""One."""

from math import pi, tau
import os

# why
A = pi  # and more


def half() -> float:
    """Half."""
    return tau / 2
# last
'''
TWO = '''"""Two.

More.
"""
import os
import torch
from math import pi
from made.one import A, half

__all__ = ["B"]
B = A + half() + pi
'''
BOTH = f'''"""Both.
"""

import os
from math import pi, tau

import torch


# {"-" * 126}
# made.one
# One.

# why
A = pi  # and more


def half() -> float:
    """Half."""
    return tau / 2
# last


# {"-" * 126}
# made.two
# Two.
#
# More.

B = A + half() + pi
'''


def test_comments_and_docstrings_stay_and_imports_come_once(package: Callable[..., None]):
    package(one=ONE, two=TWO)
    assert merged("made.two", "Both.") == BOTH


REFUSED = {
    "A has another meaning in made.one": ("A = 1", "from made.one import A\nA = 2"),
    "name has another meaning": ("name = B = 1", "from made.one import B\nfrom os import name"),
    "under another name": ("A = 1", "from made.one import A as B"),
    "is not defined in made.one itself": ("from os import name", "from made.one import name"),
    "must stand at the top": ("A = 1", "def f():\n    from made.one import A"),
    "only `from made.x import y` can be merged": ("A = 1", "import made.one"),
    "neither relative imports": ("A = 1", "from .one import A"),
    "nor those of __future__": ("A = 1", "from __future__ import annotations"),
    "made.two > made.one > made.two": ("from made.two import A\nB = 1", "from made.one import B\nA = 1"),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_would_mean_something_else_in_one_file_is_refused(told: str, package: Callable[..., None]):
    one, two = REFUSED[told]
    package(one=one, two=two)
    with pytest.raises(CannotMergeError) as refused:
        merged("made.two", "Both.")
    assert told in str(refused.value)


def test_a_module_that_is_a_folder_is_found(package: Callable[..., None], tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "__init__.py").write_text("A = 1\n")
    assert Module("made.deep").text == "A = 1\n"
