"""The shape of the package: short files, each of one idea."""

from pathlib import Path

import pytest

import ngpt_lab

FILES = sorted(Path(ngpt_lab.__file__).parent.rglob("*.py"))


def test_no_file_of_the_package_is_longer_than_300_lines():
    assert len(FILES) > 20
    long = {str(file): count for file in FILES if (count := len(file.read_text().splitlines())) > 300}
    assert not long


@pytest.mark.parametrize("name", ["utils", "util", "common", "helpers", "manager"])
def test_no_file_is_named_for_nothing(name):
    assert not [file for file in FILES if file.stem == name or file.parent.name == name]
