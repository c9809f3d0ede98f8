"""Whole runs through the command line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.metrics_file import METRICS, STATISTICS
from ngpt_lab.training.telemetry import step_loss

Fit = Callable[..., Path]
Readers = dict[str, Callable[[Path], Any]]
Refused = Callable[[list[str]], str]


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_the_saved_config_replays_digit_for_digit(model: str, fit: Fit, read: Readers, tmp_path: Path) -> None:
    first = fit(model)
    again = tmp_path / "again"
    CLI(["fit", "-c", str(first / "config.yaml"), f"--trainer.default_root_dir={again}"])
    assert len(read["losses"](first)) == 12
    assert read["losses"](again) == read["losses"](first)


def test_training_learns(fit: Fit, read: Readers) -> None:
    folder = fit("ngpt", "--trainer.max_steps=40")
    assert read["losses"](folder)[-1] < read["losses"](folder)[0] - 1


def test_every_metric_is_documented_and_every_documented_training_metric_is_logged(fit: Fit, read: Readers) -> None:
    logged = {key for row in read["rows"](fit("ngpt")) for key in row}
    fill = {"layer": r"\d\d", "stat": f"({'|'.join(STATISTICS)})", "matrix": r"[\w.]+"}
    patterns = {key: re.compile(re.sub(r"{(\w+)}", lambda name: fill[name[1]], key)) for key in METRICS}
    assert not [key for key in logged if not any(pattern.fullmatch(key) for pattern in patterns.values())]
    absent = {key for key, pattern in patterns.items() if not any(pattern.fullmatch(k) for k in logged)}
    assert absent == {"scale/s_v/{layer}/{stat}", *(key for key in METRICS if key.startswith(("test/", "val_other/")))}


def test_a_run_records_what_it_was(fit: Fit, read: Readers) -> None:
    folder = fit("ngpt", "--trainer.accumulate_grad_batches=2")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["model"]["parametrisation"] == "ngpt-short"
    assert record["model"]["scales"]["attention_alpha/00"] == pytest.approx(1 / 2)
    assert record["tokens"] == 12 * record["tokens_per_step"] == 12 * 2 * 8 * 64
    assert record["settings"]["model.init_args.backbone.init_args.dims.vocab_size"] == 256
    assert record["final"]["val/loss"] == read["rows"](folder)[-1]["val/loss"]
    assert read["rows"](folder)[-1]["step"] == 12
    assert set(load_file(folder / "scales" / "step-000010.safetensors")) >= {"attention_alpha/01", "mlp_alpha/00", "s_z"}


def test_a_resumed_run_ends_like_one_that_was_never_stopped(fit: Fit, read: Readers, tmp_path: Path) -> None:
    whole = fit("ngpt", "--model.backbone.attention_dropout=0.3")
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    # What a run killed after step 11 leaves: the checkpoint of step 10, rows beyond it, a record that says running.
    (stopped / "checkpoints" / "step-000012.ckpt").unlink()
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "tok')
    CLI(["fit", "-c", str(whole / "config.yaml"), f"--trainer.default_root_dir={stopped}", "--ckpt_path=last"])
    steps = [row["step"] for row in read["rows"](stopped) if "train/loss" in row]
    assert steps == list(range(1, 13))
    assert read["losses"](stopped) == read["losses"](whole)


def test_angles_and_time_go_on_from_a_checkpoint_between_two_rows(fit: Fit, read: Readers, tmp_path: Path) -> None:
    words = ["--trainer.log_every_n_steps=4", "--checkpoint.every_n_train_steps=3", "--checkpoint.keep=null"]
    whole = fit("ngpt", *words)
    stopped = tmp_path / "stopped"
    (stopped / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / "checkpoints" / "step-000006.ckpt", stopped / "checkpoints")
    kept = [row for row in read["rows"](whole) if row["step"] <= 6]
    (stopped / "metrics.jsonl").write_text("".join(json.dumps({**row, "time": 1000.0}) + "\n" for row in kept))
    CLI(["fit", "-c", str(whole / "config.yaml"), f"--trainer.default_root_dir={stopped}", "--ckpt_path=last"])

    def angles(folder: Path) -> list[dict[str, float]]:
        trained = [row for row in read["rows"](folder) if "train/loss" in row]
        return [{key: value for key, value in row.items() if key.startswith("sphere/angle/")} for row in trained]

    assert angles(stopped) == angles(whole)
    assert json.loads((stopped / "run.json").read_text())["wall_time_s"] > 1000


def test_a_finished_run_can_be_made_longer(fit: Fit, read: Readers) -> None:
    folder = fit("ngpt")
    whole = fit("ngpt", "--trainer.max_steps=16", "--model.schedule.length=12", name="whole")
    more = [f"--trainer.default_root_dir={folder}", "--ckpt_path=last", "--trainer.max_steps=16", "--model.schedule.length=12"]
    CLI(["fit", "-c", str(folder / "config.yaml"), *more])
    assert read["losses"](folder) == read["losses"](whole)


def test_a_checkpoint_holds_tensors_and_plain_values_alone(fit: Fit) -> None:
    last = fit("ngpt") / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["global_step"] == 12


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_a_finished_run_can_be_evaluated_from_its_folder(
    subcommand: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit("nemotron")
    monkeypatch.chdir(tmp_path)
    words = ["-c", str(folder / "config.yaml"), f"--ckpt_path={folder}/checkpoints/last.ckpt", "--trainer.default_root_dir=out"]
    cli = CLI([subcommand, *words])
    if subcommand == "predict":
        loss = load_file(tmp_path / "out" / "predictions.safetensors")["loss"]
        assert loss.shape[1] == 64
        assert (loss > 0).all()
        with pytest.raises(InputError, match="is there already"):
            CLI([subcommand, *words])
    else:
        split = {"validate": "val", "test": "test"}[subcommand]
        assert f"{cli.model.evaluated[f'{split}/loss']:.6g}" in capsys.readouterr().out
    if subcommand == "validate":
        trained = json.loads((folder / "run.json").read_text())["final"]["val/loss"]
        assert cli.model.evaluated["val/loss"] == pytest.approx(trained, rel=1e-6)


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_weights_alone_can_be_evaluated(subcommand: str, fit: Fit, tmp_path: Path) -> None:
    folder = fit("nemotron")
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.save({"state_dict": kept}, tmp_path / "weights.ckpt")
    words = ["-c", str(folder / "config.yaml"), f"--ckpt_path={tmp_path}/weights.ckpt"]
    cli = CLI([subcommand, *words, f"--trainer.default_root_dir={tmp_path}/out"])
    if subcommand == "validate":
        trained = json.loads((folder / "run.json").read_text())["final"]["val/loss"]
        assert cli.model.evaluated["val/loss"] == pytest.approx(trained, rel=1e-6)
    with pytest.raises(InputError, match="no run's checkpoint: it has no global_step"):
        CLI(["fit", *words])
    torch.save({"weights": kept}, tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match="it has no state_dict"):
        CLI([subcommand, *words, f"--trainer.default_root_dir={tmp_path}/more"])


def test_a_row_holds_the_loss_of_the_whole_batch_whoever_had_which_share() -> None:
    class Two:
        def reduce(self, loss: torch.Tensor, reduce_op: str) -> torch.Tensor:
            return (loss + 5.0) / 2

    module = SimpleNamespace(train_loss=torch.tensor(3.0))
    assert step_loss(SimpleNamespace(world_size=2, strategy=Two()), module) == 4.0
    assert step_loss(SimpleNamespace(world_size=1, strategy=None), module) == 3.0


def test_a_folder_of_any_name_is_told_as_it_is_called(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit("nemotron", name="one[two]x[/red]")
    capsys.readouterr()
    CLI(["fit", "-c", str(folder / "config.yaml"), f"--trainer.default_root_dir={folder}", "--ckpt_path=last"])
    assert f"{folder} is finished" in capsys.readouterr().out


def test_a_run_that_stops_early_is_not_finished(fit: Fit) -> None:
    folder = fit("nemotron", "--trainer.limit_train_batches=5", "--trainer.max_epochs=1")
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "stopped"
    assert record["tokens"] < record["steps"] * record["tokens_per_step"]


def test_a_run_that_diverges_has_failed(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite"):
        fit("nemotron", "--model.optimizer.lr=1e30")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "not finite" in record["error"]
    assert "final" not in record


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_weights_can_be_stored_in_bfloat16_and_losses_are_still_exact(model: str, fit: Fit, read: Readers) -> None:
    folder = fit(model, "--trainer.precision=bf16-true", "--trainer.max_steps=40")
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert read["losses"](folder)[-1] < read["losses"](folder)[0] - 1
    final = json.loads((folder / "run.json").read_text())["final"]
    rounded = {key: value for key, value in final.items() if value == torch.tensor(value).bfloat16().item()}
    assert rounded.keys() <= {"val/accuracy"}
    if model == "ngpt":
        # Rounding to bfloat16 takes a vector off the sphere by at most its precision.
        assert max(row["sphere/weight_error"] for row in read["rows"](folder) if "sphere/weight_error" in row) < 2**-8


def test_no_clipping_is_no_clipping(fit: Fit, read: Readers) -> None:
    zero, none = (fit("ngpt", f"--trainer.gradient_clip_val={value}", name=value) for value in ("0", "null"))
    assert read["losses"](zero) == read["losses"](none)
    assert [row["train/clipped_share"] for row in read["rows"](zero) if "train/loss" in row] == [0] * 12


def test_a_folder_in_use_is_refused_and_left_as_it_was(fit: Fit, refused: Refused) -> None:
    folder = fit("nemotron")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    told = refused(["fit", "-c", str(folder / "config.yaml"), f"--trainer.default_root_dir={folder}"])
    assert f"{folder} is in use" in told
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_wrong_input_is_told_in_one_sentence(fit: Fit, refused: Refused, tmp_path: Path) -> None:
    config = ["fit", "-c", str(fit("nemotron") / "config.yaml"), f"--trainer.default_root_dir={tmp_path / 'new'}"]
    cases = {
        "there is no checkpoint": ["--ckpt_path=last"],
        "gpu": ["--trainer.accelerator=gpu"],
        "vocab_size": ["--model.backbone.dims.vocab_size=100"],
        "needs NormalizeWeights": ["--model.backbone=NGPT", "--normalize_weights.every_n_steps=null"],
        "max_steps": ["--trainer.max_steps=-1", "--trainer.max_epochs=1"],
        "d_ff 256 and this run has 32": [
            "--model.backbone.dims.d_ff=32",
            f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}",
        ],
        "clipped by their total norm": ["--trainer.gradient_clip_algorithm=value"],
        "schedule.decay is 0": ["--model.schedule=WarmupStableDecay", "--model.schedule.decay=0"],
        "is not a checkpoint": [f"--ckpt_path={tmp_path / 'run/config.yaml'}"],
    }
    if torch.cuda.is_available():
        del cases["gpu"]
    for expected, more in cases.items():
        assert expected in refused([*config, *more])
        assert not (tmp_path / "new").exists()


def test_random_weights_are_not_evaluated(fit: Fit, refused: Refused) -> None:
    assert "name a checkpoint" in refused(["validate", "-c", str(fit("nemotron") / "config.yaml")])


def test_a_recorded_config_runs_again_as_it_is(
    fit: Fit, read: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fit("nemotron")
    monkeypatch.chdir(tmp_path)
    again = CLI(["fit", "-c", str(folder / "config.yaml")]).folder
    assert again.parent == Path("runs")
    assert read["losses"](again) == read["losses"](folder)
    assert (again / "config.yaml").read_text() == (folder / "config.yaml").read_text()


def test_compile_without_a_compiler_is_refused(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no C\\+\\+ compiler"):
        fit("ngpt", "--model.compile=true")
