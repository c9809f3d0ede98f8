"""`ngpt-lab diff` finds all that differs between two runs, and nothing else."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep import diff
from ngpt_lab.sweep.diff import ABSENT, differences

_spec = importlib.util.spec_from_file_location("sweep_folders", Path(__file__).parent / "sweep_folders.py")
assert _spec is not None
assert _spec.loader is not None
folders = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(folders)

LR = "model.init_args.optimizer.init_args.lr"
LOSSES = {10: 3.0, 20: 2.5, 40: 2.0}


def run(folder: Path, name: str, settings: dict[str, Any] | None = None, **more: Any) -> Path:
    own = {"trainer.default_root_dir": f"{folder}/runs/{name}", "checkpoint.dirpath": f"/elsewhere/{name}/checkpoints"}
    common = {LR: 0.002, "trainer.devices": 1, "betas": [0.9, 0.95]}
    place: Path = folders.write_run(
        folder, folders.planned("x", folder=name), settings={**common, **own, **(settings or {})}, **more
    )
    return place


def test_runs_of_the_same_do_not_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [run(tmp_path, "one"), run(tmp_path, "two", wall_time_s=9.0)]
    found = differences(*pair)
    assert (found.nothing, found.sections) == (True, {})
    diff.main([str(place) for place in pair])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["train/loss is the same in all 3 logged rows", "nothing differs but the time they took"]


def test_every_planted_difference_is_found_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = run(tmp_path, "one", diff="+ a\n", final={"val/loss": 1.5, "val/accuracy": 0.5})
    two = run(
        tmp_path,
        "two",
        {LR: 0.004, "trainer.devices": True, "note": "[red]<b>"},
        commit="4567def",
        diff="+ b\n",
        data={"source": "words", "fingerprint": "0ddba11"},
        model={"class": "Nemotron", "parameters": 856_000, "flops_per_token": 5_000_000, "scales": {"s_z": 8.0}},
        versions={"torch": "2.11.0"},
        device={"kind": "cuda", "threads": 1},
        sweep={"condition": {"data.init_args.seq_len": 256}},
        losses=LOSSES | {20: 2.500000000000001},
        final={"val/loss": 1.25, "val/accuracy": 0.5, "test/loss": 1.0},
    )
    found = differences(one, two)
    assert found.sections == {
        "run": {"sweep.condition.data.init_args.seq_len": (ABSENT, 256)},
        "source": {
            "commit": ("0123abc", "4567def"),
            "uncommitted changes": ("1 line(s) (bfea459f)", "1 line(s) (f73f66be)"),
        },
        "settings": {LR: (0.002, 0.004), "note": (ABSENT, "[red]<b>"), "trainer.devices": (1, True)},
        "data": {"fingerprint": ("feed5eed", "0ddba11")},
        "model": {"class": ("NGPT", "Nemotron"), "scales.s_z": (ABSENT, 8.0)},
        "versions": {"torch": ("2.13.0", "2.11.0")},
        "device": {"kind": ("cpu", "cuda")},
    }
    assert found.training == "train/loss first differs at step 20: 2.5 and 2.500000000000001"
    assert not found.nothing
    diff.main([str(one), str(two)])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"note (absent) [red]<b>", "val/loss 1.5 1.25 -0.25", "val/accuracy 0.5 0.5 +0", "test/loss (absent) 1.0"} <= set(
        lines
    )


def test_training_that_was_not_logged_alike_is_not_the_same(tmp_path: Path) -> None:
    one, two, half = (run(tmp_path, name) for name in ("one", "two", "half"))
    run(tmp_path, "two", losses=LOSSES | {80: 1.9})
    (half / "metrics.jsonl").write_text((one / "metrics.jsonl").read_text() + '{"step"')
    expected = "the training losses are not of the same steps: 3 (to step 40) and 4 (to step 80) are logged"
    assert differences(one, two).training == expected
    found = differences(one, half)
    assert found.training.endswith(f"; {half}: metrics.jsonl cannot be read in line 5")
    assert not found.nothing


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    good, bad = run(tmp_path, "one"), tmp_path / "two"
    bad.mkdir()
    for content, expected in ((None, "run.json is missing"), ("{", "half-written"), ("[]", "holds no JSON object")):
        if content is not None:
            (bad / "run.json").write_text(content)
        with pytest.raises(InputError, match=expected):
            differences(good, bad)
    assert json.loads((good / "run.json").read_text())["status"] == "finished"
