"""What is compiled once is found by later processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ngpt_lab.machine import keep_compiled

PROGRAM = """
from ngpt_lab.machine import keep_compiled
keep_compiled()
import torch
torch.compile(lambda x: x @ x)(torch.ones(8, 8))  # a library's kernel: nothing waits for a C++ compiler
print(torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"])
"""


def hits(**variables: str) -> int:
    known = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=known | variables, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_second_process_finds_what_the_first_compiled_in_the_user_s_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert hits(NGPT_LAB_CACHE=str(cache)) == 0
    assert any((cache / "compiled").iterdir())
    assert hits(NGPT_LAB_CACHE=str(cache)) == 1


def test_a_place_that_torch_was_told_of_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "told")
    keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "told"


def test_where_the_user_s_cache_cannot_be_written_torch_s_own_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_compiled()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
