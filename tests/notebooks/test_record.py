"""A recorded copy is slim, says nothing of the machine, and reads like the runs it was made of."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ngpt_lab.analysis.rotation import angle_turned
from ngpt_lab.analysis.runs import load_run
from ngpt_lab.analysis.scales import scale_history
from ngpt_lab.errors import InputError
from ngpt_lab.interop.trained import load_trained
from ngpt_lab.training.cli import CLI

ROOT = Path(__file__).parents[2]
ARMS = ("ngpt", "nemotron")
STEPS = 24


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", ROOT / "notebooks" / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of one seed, trained on a text that only this machine has."""
    at = tmp_path_factory.mktemp("machine")
    text = at / "words.txt"
    text.write_text("the norm of a vector on the sphere is one\n" * 3000)
    folder = at / "comparison"
    for arm in ARMS:
        files = ["base.yaml", f"model/{arm}.yaml", "size/debug.yaml"]
        words = [word for file in files for word in ("-c", str(ROOT / "configs" / file))]
        words += ["--data.source=TextFiles", f"--data.source.files={text}"]
        words += [f"--trainer.default_root_dir={folder / 'runs' / f'{arm}-{STEPS * 512}-s1'}"]
        words += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", f"--trainer.max_steps={STEPS}"]
        words += ["--trainer.log_every_n_steps=1", "--telemetry.scales_every_n_steps=12", "--seed_everything=1"]
        CLI(["fit", *words, "--data.eval_windows=16", f"--trainer.val_check_interval={STEPS}"])
    plan = {"arms": {arm: {"arguments": ["-c", f"{ROOT}/configs/base.yaml"]} for arm in ARMS}, "baseline": "nemotron"}
    (folder / "compare.json").write_text(json.dumps(plan | {"command": f"ngpt-lab compare --out={folder}"}))
    return folder


@pytest.fixture(scope="module")
def copy(script: ModuleType, comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("copies") / "recorded" / "comparison"
    script.main([str(comparison), str(target)])
    return target


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "runs").iterdir())


def test_a_copied_run_ended_as_the_run_did(comparison: Path, copy: Path):
    assert len(runs(copy)) == len(ARMS)
    for original, copied in zip(runs(comparison), runs(copy), strict=True):
        before, after = load_run(original), load_run(copied)
        assert after.problem is None
        assert (after.arm, after.budget, after.seed, after.final) == (before.arm, before.budget, before.seed, before.final)
        assert after.metrics["train/loss"].to_list() == pytest.approx(before.metrics["train/loss"], rel=1e-5, nan_ok=True)


def test_a_copied_run_has_the_weights_and_scales_of_the_run(comparison: Path, copy: Path):
    for original, copied in zip(runs(comparison), runs(copy), strict=True):
        before, after = (load_trained(folder).decoder.state_dict() for folder in (original, copied))
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert scale_history(copied).equals(scale_history(original))


def test_a_copy_has_less_telemetry_and_the_same_turn_in_all(script: ModuleType, comparison: Path, copy: Path):
    [original], [copied] = ([load_run(run) for run in runs(folder) if "ngpt" in run.name] for folder in (comparison, copy))
    before, after = angle_turned(original), angle_turned(copied)
    assert after.groupby("matrix").size().unique() == script.ROWS < STEPS
    last = [turned.groupby("matrix")["total"].last() for turned in (before, after)]
    assert last[1].to_list() == pytest.approx(last[0].to_list(), rel=1e-5)
    assert after["step"].max() == STEPS


def test_a_copy_names_no_folder_of_the_machine(comparison: Path, copy: Path):
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".yaml", ".safetensors"}
    for place in (comparison.parent, ROOT, Path.home()):
        assert not [path for path in files if f"{place}/".encode() in path.read_bytes()]
    settings = json.loads((runs(copy)[0] / "run.json").read_text())["settings"]
    assert settings["data.init_args.source.init_args.files"] in ("words.txt", ["words.txt"])


def test_a_copy_can_leave_the_weights_out(script: ModuleType, comparison: Path, tmp_path: Path):
    script.main([str(comparison), str(tmp_path / "copy"), "--no-weights"])
    assert not list(tmp_path.rglob("weights.safetensors"))


def test_what_is_there_is_not_overwritten(script: ModuleType, comparison: Path, copy: Path):
    with pytest.raises(InputError, match="exists: remove it"):
        script.record(comparison, copy)


def test_a_folder_without_a_plan_is_refused(script: ModuleType, tmp_path: Path):
    with pytest.raises(InputError, match=r"neither sweep\.json nor compare\.json"):
        script.record(tmp_path, tmp_path / "copy")


@pytest.mark.parametrize(
    ("text", "portable"),
    [
        ("1/sqrt(d_model)", "1/sqrt(d_model)"),
        ("ngpt / nemotron, val/loss", "ngpt / nemotron, val/loss"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("--out=/data/of/mine/runs", "--out=runs"),
        ("('/data/mine.txt', ../kept/as.is)", "('mine.txt', ../kept/as.is)"),
        (f"{Path.cwd()}/configs/base.yaml", "configs/base.yaml"),
    ],
)
def test_only_absolute_paths_are_shortened(script: ModuleType, text: str, portable: str):
    assert script.portable(text) == portable
