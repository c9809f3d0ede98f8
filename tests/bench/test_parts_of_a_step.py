"""The loss and the projection by themselves."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ngpt_lab.bench.loss import Work, measure_loss
from ngpt_lab.bench.projection import measure_projection
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "bound"), [("32-true", 1e-5), ("bf16-mixed", 2e-2)])
def test_all_losses_are_measured_on_the_same_and_right(precision: str, bound: float) -> None:
    measured = measure_loss(Work(vocab_size=700, d_model=16, tokens=512, precision=precision), 2, 1, 1, CPU)
    expected = ["whole", "chunked", *["torch"] * hasattr(F, "linear_cross_entropy")]
    assert list(measured["arms"]) == expected
    for arm in measured["arms"].values():
        assert len(arm["seconds"]) == 2
        assert max(arm["errors"].values()) < bound
    whole, chunked = measured["arms"]["whole"], measured["arms"]["chunked"]
    assert whole["share_of_logits"] > 2  # logits, their gradient and what the loss keeps of them
    assert chunked["bytes"] < whole["bytes"]
    assert set(measured["ratios"]) == set(expected[1:])


def test_the_projection_is_measured_against_loop_and_step(args) -> None:  # type: ignore[no-untyped-def]
    measured = measure_projection(args("ngpt"), rounds=3, warmup=1, threads=1, compiled=False)
    seconds = {name: arm["seconds"] for name, arm in measured["arms"].items()}
    assert measured["ratios"]["loop"]["per_round"] == [
        a / b for a, b in zip(seconds["projection"], seconds["loop"], strict=True)
    ]
    assert measured["ratios"]["step"]["high"] < 1
    assert max(measured["error"].values()) < 1e-6
    assert measured["matrices"] == 2 * 6 + 2
    with pytest.raises(InputError, match=r"normalize_weights\.every_n_steps is 0"):
        measure_projection(args("nemotron"), rounds=1, warmup=0, threads=1, compiled=False)


def test_the_commands_write_what_they_print(tmp_path: Path, args, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    file, rounds = tmp_path / "figures.json", ["--rounds", "2", "--warmup", "0"]
    main(["bench", "loss", "--vocab_size", "90", "--tokens", "32", "--d_model", "8", *rounds, "--json", str(file)])
    assert json.loads(file.read_text())["work"] == {"vocab_size": 90, "d_model": 8, "tokens": 32, "precision": "32-true"}
    assert "chunked" in capsys.readouterr().out
    models = [word for word in args("ngpt") if word.endswith(".yaml")][1:]
    settings = [f"--set={word}" for word in args("ngpt") if word.startswith("--")]
    main(["bench", "projection", f"--arm=ngpt={','.join(models)}", *settings, *rounds, "--json", str(file)])
    assert json.loads(file.read_text())["tokens_per_step"] == 8 * 64
    assert "loop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss", "--vocab_size", "0"], "--vocab_size is 0: it must be at least 1"),
        (["loss", "--precision", "16"], "--precision is 16: choose 32-true or bf16-mixed"),
        (["projection", "--threads", "0"], "--threads is 0: it must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
