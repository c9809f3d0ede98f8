"""Python source taken apart into its code and the English of its docstrings."""

import ast
import warnings

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


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
