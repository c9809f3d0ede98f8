"""The step benchmark: interleaved, and its ratios those of its seconds."""

import json
from pathlib import Path

import pytest
import torch

from ngpt_lab.bench.step import ratio, time_rounds
from ngpt_lab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def test_arms_take_turns_and_warmup_does_not_count() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = time_rounds(steps, rounds=3, warmup=1, device=torch.device("cpu"))
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_pairs_rounds() -> None:
    drifting = ratio([1.1, 2.2, 4.4], [1.0, 2.0, 4.0])
    assert drifting["median"] == pytest.approx(1.1)
    assert drifting["half_width"] == pytest.approx(0, abs=1e-9)
    # Student's t with 2 degrees of freedom: 4.303 times the standard error.
    assert ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])["half_width"] == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_the_command_measures_both_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [f"{m}={CONFIGS}/model/{m}.yaml,{CONFIGS}/size/debug.yaml" for m in ("ngpt", "nemotron")]
    file = tmp_path / "cost.json"
    main(["bench", "step", "--arm", arms[0], "--arm", arms[1], "--rounds", "3", "--warmup", "1", "--json", str(file)])
    cost = json.loads(file.read_text())
    assert set(cost["arms"]) == {"ngpt", "nemotron"}
    assert all(len(arm["seconds"]) == 3 and min(arm["seconds"]) > 0 for arm in cost["arms"].values())
    pairs = zip(cost["arms"]["ngpt"]["seconds"], cost["arms"]["nemotron"]["seconds"], strict=True)
    assert cost["ratios"]["ngpt"]["per_round"] == [a / b for a, b in pairs]
    assert "ngpt" in capsys.readouterr().out
