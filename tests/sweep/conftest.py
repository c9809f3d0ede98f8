"""A small sweep on made text, to be changed key by key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ngpt_lab.sweep.plan import Sweep, make_sweep
from ngpt_lab.sweep.spec_file import read_spec

NGPT = {"configs": ["model/ngpt.yaml", "size/debug.yaml", "short.yaml"]}
NEMOTRON = {"configs": ["model/nemotron.yaml", "size/debug.yaml", "short.yaml"]}
PLAIN: dict[str, Any] = {
    "question": "Does it matter?",
    "bases": {"ngpt": {**NGPT, "ablations": ["slerp"]}, "nemotron": NEMOTRON},
    "compare": {"baseline": "nemotron"},
    "seeds": [1, 2],
    "budgets": [512, 1024],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the specification with some keys changed; a step is 256 tokens."""

    def write(**changes: Any) -> Path:
        (tmp_path / "words.txt").write_text("".join(f"line {n} says {n * n}\n" for n in range(4000)))
        (tmp_path / "short.yaml").write_text(
            f"data: {{class_path: ngpt_lab.data.TextDataModule, init_args: {{seq_len: 32, "
            f"source: {{class_path: ngpt_lab.data.TextFiles, init_args: {{files: {tmp_path / 'words.txt'}}}}}}}}}\n"
        )
        content = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return tmp_path / "sweep.yaml"

    return write


@pytest.fixture
def plan(write: Callable[..., Path], tmp_path: Path) -> Callable[..., Sweep]:
    """The plan of that specification."""

    def plan(**changes: Any) -> Sweep:
        return make_sweep(read_spec(write(**changes)), tmp_path / "out")

    return plan
