"""Code that is in no package: the fixtures of other folders' tests, and scripts."""

import importlib.util
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[1]


def module_at(path: Path) -> ModuleType:
    """The module that a file holds, run anew."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(folder: str) -> ModuleType:
    """The fixtures of a folder's tests."""
    return module_at(TESTS / folder / "conftest.py")
