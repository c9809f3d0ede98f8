"""The benchmarks of data: every figure is measured, and ratios are those of the rates."""

import json
from pathlib import Path

import pytest

from ngpt_lab.bench.loading import measure_loading
from ngpt_lab.bench.memory import measure_memory
from ngpt_lab.bench.tokenizing import measure_tokenizing
from ngpt_lab.cli import main
from ngpt_lab.data import TextFiles


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("".join(f"line {n} of the text says {n * n}\n" for n in range(5000)))
    return path


def check(pair: dict, rounds: int) -> None:  # type: ignore[type-arg]
    ours, against = pair["ours"]["rates"], pair["against"]["rates"]
    assert len(ours) == len(against) == rounds
    assert min(ours) > 0
    assert pair["ratio"]["per_round"] == [one / other for one, other in zip(ours, against, strict=True)]


def test_the_loader_is_measured_against_a_step(text: Path) -> None:
    settings = ["--data.source=TextFiles", f"--data.source.files={text}", "--data.seq_len=64", "--data.batch_size=2"]
    check(measure_loading(2, settings), 2)


def test_tokenizing_is_measured_against_datasets_map(text: Path) -> None:
    check(measure_tokenizing(TextFiles(str(text)), 2, 1, 300), 2)


@pytest.mark.slow
def test_memory_is_measured_while_tokenizing_and_while_reading(tmp_path: Path) -> None:
    [row] = measure_memory([1], 1, tmp_path)
    assert row["store"] > 2e6  # two bytes a token
    assert min(row["tokenizing"], row["reading"]) > 1e7
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {"unit": "x/s", "ratio": {"per_round": [2.0], "median": 2.0, "low": 2.0, "high": 2.0}}
    pair |= {side: {"what": side, "rates": [rate], "median": rate} for side, rate in (("ours", 4.0), ("against", 2.0))}
    monkeypatch.setattr("ngpt_lab.bench.loading.measure_loading", lambda *_: pair)
    monkeypatch.setattr("ngpt_lab.bench.tokenizing.measure_tokenizing", lambda *_: pair)
    main(["bench", "data", "--json", str(tmp_path / "data.json")])
    assert set(json.loads((tmp_path / "data.json").read_text())) == {"loading", "tokenizing"}
    assert "2 to 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data", "--rounds", "0"], "--rounds is 0"),
        (["memory", "--megabytes", "0"], "--megabytes is 0"),
        (["speed"], "bench does not measure 'speed': choose one of step, data, generate, memory"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
