"""Golden files of the two models that are generated from."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parents[1]


def of(folder: str) -> ModuleType:
    """The fixtures of another folder's tests."""
    spec = importlib.util.spec_from_file_location(f"conftest_of_{folder}", TESTS / folder / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train = of("analysis").train
dims = of("models").dims
architecture = of("models").architecture
PARITY = of("parity")
FILES = [path for path in PARITY.FILES if path.name.startswith(("r1_", "r3_nemotron_lm"))]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest):
    return PARITY.Golden.read(request.param)
