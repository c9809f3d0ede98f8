"""The standard library as two corpora that share no text: its code, and the English of its docstrings."""

import ast
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ngpt_lab.data.corpora import Corpus, join, stream
from ngpt_lab.data.standard_library import held_out, join_modules, module_of, read_documents, read_modules, standard_library

ROOT = Path(sysconfig.get_path("stdlib"))
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def library_code() -> Corpus:
    """The library's source without its docstrings, split by module as `standard_library` is; read once in a process."""
    return _corpus("code", {path: code for path, (code, _) in _separated().items()})


@cache
def library_prose() -> Corpus:
    """The library's docstrings alone, split by module as `standard_library` is; read once in a process."""
    return _corpus("docstrings", {path: prose for path, (_, prose) in _separated().items()})


def separate(source: str) -> tuple[bytes, bytes]:
    """A source text less its docstrings, and the docstrings: unindented, in their order, a blank line between two.

    Raises:
        SyntaxError: the running Python cannot parse it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library's own strange escapes
        tree = ast.parse(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, Documented) and ast.get_docstring(node) is not None]
    nodes.sort(key=lambda node: node.body[0].lineno)
    # Line by line as Python counts them, and in bytes, since its columns are of UTF-8.
    lines = source.encode().splitlines(keepends=True)
    for node in nodes:
        first, last = node.body[0].lineno - 1, (node.body[0].end_lineno or 0) - 1
        rest = lines[first][: node.body[0].col_offset] + lines[last][node.body[0].end_col_offset :]
        lines[first : last + 1] = [rest if rest.strip() else b""] + [b""] * (last - first)
    prose = "\n\n".join(filter(None, (ast.get_docstring(node) for node in nodes)))
    return b"".join(lines), prose.encode()


@cache
def _separated() -> Mapping[str, tuple[bytes, bytes]]:
    """Code and docstrings of the library's files by path, of those that its own Python can parse."""
    separated = {}
    for path, document in read_documents(ROOT).items():
        try:
            separated[path] = separate(document.decode())
        except SyntaxError:
            continue
    return separated


def _corpus(kind: str, texts: Mapping[str, bytes]) -> Corpus:
    # The same modules are held out of both corpora, so that neither trains on what the other is evaluated on.
    validation, test = held_out(read_modules(ROOT))
    parts: dict[str, list[bytes]] = defaultdict(list)
    for path, text in texts.items():
        if text:
            parts[module_of(path)].append(text)
    modules = {name: join(documents) for name, documents in parts.items()}
    return Corpus(
        source=f"{kind} of the {standard_library().source}",
        train=stream(join_modules(modules, modules.keys() - validation - test)),
        validation=stream(join_modules(modules, validation & modules.keys())),
        test=stream(join_modules(modules, test & modules.keys())),
        python=standard_library().python,
    )
