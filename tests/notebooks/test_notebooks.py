"""Every notebook runs on the shipped results, and on other results by changing one path."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FIGURES = {
    "01_first_look": 4,
    "02_eigen_learning_rates": 8,
    "03_speedup": 7,
    "04_geometry": 9,
    "05_ablations": 2,
    "06_length_extrapolation": 2,
}
"""Notebook -> figures it draws on the shipped results, at the least."""
ELSEWHERE = {
    "01_first_look": "comparison",
    "02_eigen_learning_rates": "comparison",
    "03_speedup": "first-look",
    "05_ablations": "comparison",
}
"""Notebook -> the other shipped results; weights, which 04 and 06 need, are in the first alone."""
ALLOWED = re.compile(r"pathlib|pandas|IPython\.display|ngpt_lab\.analysis(\..*)?|ngpt_lab\.interop\.trained")
STRICT = """
import warnings
warnings.simplefilter("error")
# The kernel's own, when it is shut down.
warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*is deprecated")
warnings.filterwarnings("ignore", message="`torch.jit.script.*is deprecated", category=DeprecationWarning)
"""
RESULTS = re.compile(r'^RESULTS = Path\("(recorded/[-\w]+)"\)  # change this to a .* of yours$', re.MULTILINE)


def read(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def executed(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The outputs of the notebook, run from top to bottom in its folder with warnings as errors."""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def drawn(outputs: list[dict[str, Any]]) -> int:
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_runs_top_to_bottom_and_draws_its_figures(name: str):
    assert drawn(executed(read(name))) >= FIGURES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ELSEWHERE)
def test_one_path_turns_a_notebook_to_other_results(name: str):
    notebook = read(name)
    [cell] = [cell for cell in notebook.cells if RESULTS.search(cell.source)]
    cell.source = RESULTS.sub(f'RESULTS = Path("recorded/{ELSEWHERE[name]}")', cell.source)
    assert drawn(executed(notebook)) >= 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_names_its_results_once_and_they_are_shipped(name: str):
    found = [folder for source in code(read(name)) for folder in RESULTS.findall(source)]
    assert len(found) == 1
    assert (NOTEBOOKS / found[0]).is_dir()
    assert sum('"recorded/' in source for source in code(read(name))) == 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_committed_without_outputs(name: str):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_defines_nothing_and_calls_the_analysis_alone(name: str):
    lines = "\n".join(code(read(name))).splitlines()
    magics = [line for line in lines if line.startswith(("%", "!"))]
    assert magics == ["%matplotlib inline"]
    tree = ast.parse("\n".join(line for line in lines if line not in magics))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) or (
            _imports_what_it_may(node)
        )
        assert not (isinstance(node, ast.Assign | ast.NamedExpr) and isinstance(node.value, ast.Lambda))


def _imports_what_it_may(node: ast.AST) -> bool:
    """What trains a model stands outside of the modules that a notebook may import."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
    return bool(names) and all(ALLOWED.fullmatch(name) for name in names)
