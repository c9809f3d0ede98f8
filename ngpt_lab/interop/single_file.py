"""Modules of this package as one file that imports none of it, for machines that do not have it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ngpt_lab

PACKAGE = ngpt_lab.__name__
ROOT = Path(ngpt_lab.__file__).parent
WIDTH = 128


class CannotMergeError(Exception):
    """Modules that do not fit into one file; it names the module and the line."""


@dataclass(frozen=True)
class Module:
    """A module of the package as text; it is never imported.

    Args:
        name: its dotted name.
    """

    name: str

    @cached_property
    def path(self) -> Path:
        """Where it lies."""
        stem = ROOT.joinpath(*self.name.split(".")[1:])
        return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")

    @cached_property
    def text(self) -> str:
        """Its source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its statements."""
        return ast.parse(self.text)

    def refusal(self, node: ast.AST, why: str) -> CannotMergeError:
        """The error that says what does not fit, and where."""
        return CannotMergeError(f"{self.name}, line {getattr(node, 'lineno', 1)}: {why}")

    @cached_property
    def needs(self) -> dict[str, list[ast.ImportFrom]]:
        """The modules of the package that it imports from, in order, and the imports.

        Raises:
            CannotMergeError: it imports from them otherwise than by names that stay as they are, at its top.
        """
        found: dict[str, list[ast.ImportFrom]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == PACKAGE for alias in node.names):
                raise self.refusal(node, f"only `from {PACKAGE}.x import y` can be merged")
            if not isinstance(node, ast.ImportFrom):
                continue
            if node.level or node.module == "__future__":
                raise self.refusal(node, "neither relative imports nor those of __future__ can be merged")
            if is_ours(node):
                if node not in self.tree.body:
                    raise self.refusal(node, "an import from the package must stand at the top of its module")
                found.setdefault(str(node.module), []).append(node)
        return found

    def check(self, node: ast.ImportFrom, other: "Module") -> None:
        """Refuse an import from another module whose names would not be found, or mean something else, in one file."""
        for alias in node.names:
            if alias.asname not in (None, alias.name):
                raise self.refusal(node, f"{alias.name} is imported under another name, which would be lost")
            if alias.name not in other.defines:
                raise self.refusal(node, f"{alias.name} is not defined in {other.name} itself")

    @cached_property
    def defines(self) -> dict[str, ast.stmt]:
        """The names that it gives a value at its top, imports apart, and where."""
        return {name: node for node in self.tree.body for name in names_of(node)}

    @cached_property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        """Its imports from elsewhere, at its top."""
        return [node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom) and not is_ours(node)]

    @cached_property
    def body(self) -> str:
        """Its text without docstring, imports and __all__; every comment in front of a statement goes with the statement."""
        lines, kept, end = self.text.splitlines(), [], 0
        for number, node in enumerate(self.tree.body):
            first, end = end, node.end_lineno or 0
            docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not (docstring or isinstance(node, ast.Import | ast.ImportFrom) or "__all__" in names_of(node)):
                kept += lines[first:end]
        return "\n".join([*kept, *lines[end:]]).strip("\n")

    @property
    def title(self) -> str:
        """What its docstring says, as comments."""
        told = ast.get_docstring(self.tree) or ""
        return "\n".join(f"# {line}".rstrip() for line in (self.name, *told.splitlines()))


def is_ours(node: ast.ImportFrom | ast.Import) -> bool:
    """Whether it imports from the package."""
    return isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == PACKAGE


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement at a module's top gives a value, imports apart."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
        return []
    return [found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)]


def closure(name: str) -> list[Module]:
    """A module and all of the package that it needs, each after what it needs itself.

    Raises:
        CannotMergeError: a module needs itself, or imports in a way that cannot be merged.
    """
    done: dict[str, Module] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise CannotMergeError(f"{' > '.join((*above, name))}: modules that need each other cannot be merged")
        if name not in done:
            module = Module(name)
            for needed, imports in module.needs.items():
                visit(needed, (*above, name))
                for node in imports:
                    module.check(node, done[needed])
            done[name] = module

    visit(name, ())
    return list(done.values())


def merged(name: str, docstring: str) -> str:
    """One file that does what a module does, with the modules of the package that it needs.

    Args:
        name: the module's.
        docstring: the file's.

    Raises:
        CannotMergeError: two modules give a name different meanings, or import in a way that cannot be merged.
    """
    modules = closure(name)
    meanings: dict[str, tuple[str, str]] = {}
    for module in modules:
        for defined, meaning, node in meanings_in(module):
            known, where = meanings.setdefault(defined, (meaning, module.name))
            if known != meaning:
                raise module.refusal(node, f"{defined} has another meaning in {where}: give one of them another name")
    head = [f'"""{docstring.strip()}\n"""', import_block(modules)]
    parts = [f"{rule(module)}\n{gap(module.body)}{module.body}" for module in modules if module.body]
    text = "\n\n\n".join(["\n\n".join(head), *parts]) + "\n"
    compile(text, name, "exec")
    return text


def rule(module: Module) -> str:
    """What divides a module's part from that of the one before."""
    return f"# {'-' * (WIDTH - 2)}\n{module.title}"


def gap(body: str) -> str:
    """The empty lines in front of a part."""
    return "\n\n" if body.startswith(("class ", "def ", "@")) else "\n"


def meanings_in(module: Module) -> Iterator[tuple[str, str, ast.stmt]]:
    """Each name at a module's top, what it means, and where; imports from the package have the meaning they have there."""
    for name, node in module.defines.items():
        if name != "__all__":
            yield name, f"that of {module.name}", node
    for found in module.imports:
        for alias in found.names:
            bound = alias.asname or (alias.name if isinstance(found, ast.ImportFrom) else alias.name.partition(".")[0])
            yield bound, ast.unparse(without_others(found, alias)), found


def without_others(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    """An import of one name alone."""
    if isinstance(node, ast.Import):
        # `import a.b` binds `a`, whatever else is imported below it.
        return node if alias.asname else ast.Import([ast.alias(alias.name.partition(".")[0])])
    return ast.ImportFrom(node.module, [alias], 0)


def import_block(modules: list[Module]) -> str:
    """All imports from elsewhere, each once, the standard library's first."""
    from sys import stdlib_module_names

    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for node in (node for module in modules for node in module.imports):
        if isinstance(node, ast.Import):
            whole |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        else:
            parts.setdefault(str(node.module), set()).update(ast.unparse(alias) for alias in node.names)
    lines = sorted(whole) + [from_line(module, sorted(names)) for module, names in sorted(parts.items())]
    standard = [line for line in lines if line.split()[1].partition(".")[0] in stdlib_module_names]
    return "\n\n".join("\n".join(block) for block in (standard, [line for line in lines if line not in standard]) if block)


def from_line(module: str, names: list[str]) -> str:
    """An import of some names, no longer than a line may be."""
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= WIDTH else f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
