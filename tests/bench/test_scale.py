"""The scaling benchmark: divisions take turns, efficiency is that of the paired speeds, and a run's own words are passed on."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from ngpt_lab.bench import scale
from ngpt_lab.bench.scale import ONE, Division, divisions, measure, tokens_per_second
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    draw = random.Random(0)
    file = tmp_path / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    configs = [word for part in ("base", "model/ngpt", "size/debug") for word in ("-c", f"{CONFIGS}/{part}.yaml")]
    return [*configs, "--trainer.accelerator=cpu", "--data.source=TextFiles", f"--data.source.files={file}"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The last arguments of every run, none of which is carried out: two processes are 1.5 times as fast as one."""
    seen: list[list[str]] = []

    def speed(words: Sequence[str], steps: int) -> float:
        seen.append(list(words)[-4:])
        return (1500.0 if "--trainer.devices=2" in words else 1000.0) * (1 + len(seen) // 3)

    monkeypatch.setattr(scale, "tokens_per_second", speed)
    return seen


def test_divisions_are_measured_in_turns_and_compared_within_a_round(words, asked) -> None:  # type: ignore[no-untyped-def]
    cost = measure(words, [ONE, Division("ddp", 2)], rounds=2, steps=3)
    assert [run[1] for run in asked] == [f"--trainer.devices={n}" for n in (1, 2, 2, 1)]
    assert {run[3] for run in asked} == {"--data.batch_size=8"}
    assert cost["rows"]["ddp 2"]["tokens_per_second"] == [1500.0, 3000.0]
    assert cost["rows"]["ddp 2"]["efficiency"]["per_round"] == [0.75, 0.75]


def test_weak_scaling_gives_each_group_of_processes_a_batch(words, asked) -> None:  # type: ignore[no-untyped-def]
    divided = divisions(["ddp", "fsdp2", "tp", "fsdp2+tp"], [1, 4])
    cost = measure(words, divided, rounds=1, steps=3, weak=True)
    sizes = {name: row["batch_size"] for name, row in cost["rows"].items()}
    assert sizes == {"one process": 8, "ddp 4": 32, "fsdp2 4": 32, "tp 4": 8, "fsdp2+tp 4": 16}


def test_fsdp2_and_tp_together_need_four_processes() -> None:
    with pytest.raises(InputError, match=r"--processes 2: fsdp2\+tp needs an even number of at least 4"):
        divisions(["fsdp2+tp"], [2])


def test_the_command_writes_and_shows_the_figures(words, asked, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "scale.json"
    main(["bench", "scale", *words, "--processes", "2", "--rounds", "2", "--json", str(file)])
    cost = json.loads(file.read_text())
    assert (cost["scaling"], list(cost["rows"])) == ("strong", ["one process", "ddp 2"])
    assert "0.750 [0.750..0.750]" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_two_processes_is_measured(words) -> None:  # type: ignore[no-untyped-def]
    assert tokens_per_second([*words, *Division("ddp", 2).settings], steps=2) > 0


def test_what_a_run_says_when_it_fails_is_passed_on(words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"a run that was measured ended with exit code 2: .*batch_size is 0: it must be"):
        tokens_per_second([*words, *ONE.settings, "--data.batch_size=0"], steps=2)
