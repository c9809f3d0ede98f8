"""What a run goes on from, what it refuses to, and what it leaves behind."""

import errno
import json
import os
import pkgutil
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.training.changed_settings import as_text, changes
from ngpt_lab.training.run_checkpoints import RunCheckpoints

Fit = Callable[..., Path]
Readers = dict[str, Callable[[Path], Any]]
Watch = Callable[[Callback], None]
Command = Callable[..., list[str]]
Refused = Callable[[list[str]], str]
CutBack = Callable[[Path, int], None]
ALL = ["--checkpoint.every_n_train_steps=2", "--checkpoint.keep=null"]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def contents(folder: Path) -> dict[Path, int]:
    """Every file but those of the views, and when it was written."""
    return {
        path: path.lstat().st_mtime_ns for path in folder.rglob("*") if "tensorboard" not in path.parts and not path.is_dir()
    }


def flip(path: Path) -> None:
    """Flip a byte in the middle of the largest record."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 255
    path.write_bytes(content)


def test_as_many_checkpoints_are_kept_as_asked_and_last_is_a_link_to_the_newest(fit: Fit, read: Readers) -> None:
    folder = fit("nemotron", "--checkpoint.every_n_train_steps=2", "--checkpoint.keep=3")
    assert read["steps"](folder) == [8, 10, 12]
    last = folder / "checkpoints" / "last.ckpt"
    assert str(last.readlink()) == "step-000012.ckpt"
    moved = folder.rename(folder.with_name("moved"))
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 12


def test_a_checkpoint_lies_before_each_validation_and_only_on_optimizer_steps(fit: Fit, read: Readers, watch: Watch) -> None:
    there: list[list[int]] = []

    class Looks(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
            there.append([trainer.global_step, read["steps"](Path(trainer.default_root_dir))[-1]])

    watch(Looks())
    words = ["--trainer.accumulate_grad_batches=3", "--trainer.val_check_interval=7", "--checkpoint.every_n_train_steps=null"]
    fit("nemotron", *words)
    assert there == [[2, 2], [4, 4], [7, 7], [9, 9], [11, 11], [12, 12]]


def test_minutes_count_from_the_last_save(fit: Fit, read: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 30))  # every look at it takes half a minute
    monkeypatch.setattr("ngpt_lab.training.run_checkpoints.monotonic", lambda: float(next(clock)))
    words = ["--checkpoint.every_n_train_steps=null", "--checkpoint.every_minutes=1.5", "--checkpoint.keep=null"]
    assert read["steps"](fit("nemotron", *words)) == [3, 6, 9, 12]


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every_n_train_steps": 0}, {"every_minutes": -1.0}])
def test_wrong_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"checkpoint.{next(iter(wrong))} is .*: give a number above 0, or null"):
        RunCheckpoints(**wrong)


def test_a_broken_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    fit: Fit, read: Readers, capsys: pytest.CaptureFixture[str], cut_back: CutBack, tmp_path: Path, command: Command
) -> None:
    folder = fit("ngpt", *ALL, "--model.backbone.attention_dropout=0.3")
    before = read["timeless"](folder)
    cut_back(folder, 10)
    flip(folder / "checkpoints" / "step-000010.ckpt")
    (folder / "checkpoints" / "step-000008.ckpt").write_bytes(b"half a fi")
    (folder / "checkpoints" / ".step-000012.ckpt.1234abcd.tmp").write_bytes(b"half")
    (folder / "scales" / "step-000011.safetensors").write_bytes(b"later")
    capsys.readouterr()
    main(command(folder, "ngpt", *ALL, "--model.backbone.attention_dropout=0.3", "--ckpt_path=last"))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ngpt-lab: ")]
    assert len(told) == 4
    assert "step-000010.ckpt is not a checkpoint that can be read" in told[0]
    assert "step-000008.ckpt is not a checkpoint that can be read" in told[1]
    assert {line.rpartition(" is kept as ")[2] for line in told[2:]} == {"step-000010.ckpt.broken", "step-000008.ckpt.broken"}
    assert (folder / "checkpoints" / "step-000008.ckpt.broken").read_bytes() == b"half a fi"
    assert [again["step"] for again in record(folder)["resumed"]] == [6]
    assert read["timeless"](folder) == before
    assert not list(folder.rglob("*.tmp"))
    assert not (folder / "scales" / "step-000011.safetensors").exists()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, os.strerror(errno.EIO)), OSError(errno.EMFILE, "Too many open files"), MemoryError()],
    ids=["disk", "files", "memory"],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_broken(
    error: Exception, fit: Fit, refused: Refused, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fit("nemotron", *ALL)
    read, before = torch.load, contents(folder)

    def fails(path: Path, **more: Any) -> Any:
        if Path(path).name == "step-000012.ckpt":
            raise error
        return read(path, **more)

    monkeypatch.setattr(torch, "load", fails)
    told = refused(command(folder, "nemotron", *ALL, "--ckpt_path=last", "--trainer.max_steps=14"))
    assert "step-000012.ckpt cannot be read now" in told
    assert contents(folder) == before


@pytest.mark.parametrize("asked", ["last", "auto"])
def test_where_every_checkpoint_is_broken_nothing_is_started_or_lost(
    asked: str, fit: Fit, refused: Refused, command: Command
) -> None:
    folder = fit("nemotron")
    for path in (folder / "checkpoints").glob("step-*.ckpt"):
        flip(path)
    before = contents(folder)
    told = refused(command(folder, "nemotron", f"--ckpt_path={asked}"))
    assert "none of the 2 checkpoints in" in told
    assert contents(folder) == before


def test_last_needs_a_run_and_auto_starts_one(
    fit: Fit, read: Readers, refused: Refused, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    assert f"there is no checkpoint in {folder / 'checkpoints'} to continue from" in refused(
        command(folder, "nemotron", "--ckpt_path=last")
    )
    assert not folder.exists()
    main(command(folder, "nemotron", "--ckpt_path=auto"))
    assert read["timeless"](folder) == read["timeless"](fit("nemotron"))
    assert "of which run" in refused([word for word in command(folder, "ngpt", "--ckpt_path=auto") if "root_dir" not in word])


def test_auto_starts_again_what_came_to_no_checkpoint_and_touches_nothing_else(
    fit: Fit, read: Readers, refused: Refused, command: Command, tmp_path: Path
) -> None:
    whole, folder = fit("nemotron"), tmp_path / "new"
    for name in ("checkpoints", "tensorboard"):
        (folder / name).mkdir(parents=True)
    shutil.copy(whole / "config.yaml", folder)
    for name in ("metrics.jsonl", "checkpoints/.step-000002.ckpt.1234abcd.tmp", "tensorboard/events"):
        (folder / name).write_text("of an attempt")
    main(command(folder, "nemotron", "--ckpt_path=auto"))
    assert read["timeless"](folder) == read["timeless"](whole)
    assert (folder / "config.yaml").read_text() == (whole / "config.yaml").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "is in use" in refused(command(tmp_path / "mine", "nemotron", "--ckpt_path=auto"))
    for name in ("notes.md", "checkpoints/thesis.pt", "scales/mine/step-000001.safetensors"):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        before = contents(folder)
        told = refused(command(folder, "nemotron", "--ckpt_path=auto"))
        assert f"is in use: it holds no checkpoint to go on from, and {'/'.join(Path(name).parts[:2])}, which" in told
        assert contents(folder) == before
        path.unlink()
    shutil.rmtree(folder / "scales")
    assert "holds a finished run" in refused(command(folder, "nemotron", "--ckpt_path=auto"))
    assert (folder / "metrics.jsonl").is_file()


@pytest.mark.parametrize("foreign", ["config.yaml", "run.json", "metrics.jsonl"])
def test_auto_keeps_what_another_program_calls_as_a_run_does(
    foreign: str, refused: Refused, command: Command, tmp_path: Path, fit: Fit
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    if foreign == "run.json":
        shutil.copy(fit("nemotron") / "config.yaml", folder)
    (folder / foreign).write_text('{"model": "mine"}')
    before = contents(folder)
    assert f"{foreign}, which no run wrote" in refused(command(folder, "nemotron", "--ckpt_path=auto"))
    assert contents(folder) == before


@pytest.mark.parametrize("asked", ["last", "auto"])
def test_a_finished_run_is_left_as_it_is_and_that_is_said(
    asked: str, fit: Fit, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit("nemotron")
    before = contents(folder)
    capsys.readouterr()
    main(command(folder, "nemotron", f"--ckpt_path={asked}"))
    assert f"{folder} is finished, with all its 12 steps" in capsys.readouterr().out
    assert contents(folder) == before


def test_what_must_not_change_is_refused_in_one_sentence_and_what_may_is_recorded(
    fit: Fit, read: Readers, refused: Refused, cut_back: CutBack, command: Command
) -> None:
    folder = fit("nemotron", *ALL)
    cut_back(folder, 6)
    before, config = contents(folder), (folder / "config.yaml").read_text()
    for setting, told in {
        "--model.backbone.dims.d_ff=128": "model.backbone.dims.d_ff 256 and this run has 128",
        "--model.backbone=NGPT": "model.backbone.class_path ngpt_lab.models.Nemotron and this run has ngpt_lab.models.NGPT",
        "--model.backbone.attention_dropout=0.1": "model.backbone.attention_dropout 0.0 and this run has 0.1",
        "--seed_everything=1": "seed_everything 0 and this run has 1",
        "--data.seed=1": "data.seed 0 and this run has 1",
        "--data.batch_size=4": "data.batch_size 8 and this run has 4",
        "--trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches 1 and this run has 2",
        "--trainer.precision=bf16-mixed": "trainer.precision 32-true and this run has bf16-mixed",
        "--trainer.max_steps=4": "is of step 6, beyond trainer.max_steps 4",
    }.items():
        assert told in refused(command(folder, "nemotron", *ALL, setting, "--ckpt_path=last"))
        assert contents(folder) == before
    more = ["--trainer.max_steps=14", "--data.eval_windows=32", "--checkpoint.keep=1"]
    main(command(folder, "nemotron", *ALL, *more, "--ckpt_path=last"))
    [again] = record(folder)["resumed"]
    assert again["step"] == 6
    assert again["changed"] == {
        "trainer.max_steps": [12, 14],
        "data.init_args.eval_windows": [64, 32],
        "checkpoint.keep": [None, 1],
    }
    assert (folder / "config.yaml").read_text() == config
    assert "max_steps: 14" in (folder / "config.resume-1.yaml").read_text()
    assert [row["step"] for row in read["rows"](folder) if "train/loss" in row] == list(range(1, 15))


def test_a_corpus_may_be_moved_and_not_changed(
    fit: Fit, read: Readers, refused: Refused, cut_back: CutBack, command: Command, corpus: Path, tmp_path: Path
) -> None:
    folder = fit("nemotron", *ALL)
    before = read["timeless"](folder)
    cut_back(folder, 6)
    moved, other = (tmp_path / name / corpus.name for name in ("moved", "other"))
    for path, text in {moved: corpus.read_text(), other: corpus.read_text() + "more"}.items():
        path.parent.mkdir()
        path.write_text(text)
    words = [*ALL, "--ckpt_path=last"]
    assert "with data.fingerprint" in refused(command(folder, "nemotron", *words, f"--data.source.files={other}"))
    main(command(folder, "nemotron", *words, f"--data.source.files={moved}"))
    assert read["timeless"](folder) == before


def test_of_a_mixture_too_only_the_places_may_change() -> None:
    key = "data.init_args.source.init_args.sources"

    def source(**arguments: Any) -> dict[str, Any]:
        return {"class_path": "ngpt_lab.data.TextFiles", "init_args": arguments}

    old = [source(files="a/one.txt", errors="refuse"), source(files=["a/two.txt"], validation="a/three.txt")]
    moved = [source(files="b/one.txt", errors="refuse"), source(files=["b/two.txt"], validation="b/three.txt")]
    assert changes(as_text({key: old}), {key: moved}) == {key: [old, moved]}
    for other in (moved[:1], [source(files="b/one.txt", errors="replace"), moved[1]], None):
        with pytest.raises(InputError, match=r"data\.source\.sources"):
            changes(as_text({key: old}), {key: other})
    for name in ("folder", "path"):
        changed = {f"data.init_args.source.init_args.{name}": "there"}
        assert changes(as_text(dict.fromkeys(changed, "here")), changed)
    tokenizer = {"data.init_args.tokenizer": None}
    with pytest.raises(InputError, match="something else"):
        changes(as_text(tokenizer), {"data.init_args.tokenizer.class_path": "BPE"})


def test_settings_of_a_newer_version_and_a_part_that_is_swapped_are_told_apart() -> None:
    old = {"data.seed": 0, "model.init_args.backbone.rotary": None}
    assert changes(as_text(old), {**old, "data.new": 3}) == {}
    swapped = {"data.seed": 0, "model.init_args.backbone.rotary.class_path": "Half"}
    with pytest.raises(InputError, match=r"model\.backbone\.rotary null and this run has something else"):
        changes(as_text(old), swapped)
    for wrong in ("[1]", "{", "3"):
        with pytest.raises(InputError, match="settings are no"):
            changes(wrong, old)


class Draws(Callback):
    """Takes a number from each generator before every step, and keeps it under the step's number."""

    def __init__(self) -> None:
        self.drawn: dict[int, list[float]] = {}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.drawn[trainer.global_step] = [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]


def test_every_generator_of_random_numbers_goes_on(fit: Fit, watch: Watch, cut_back: CutBack) -> None:
    draws = Draws()
    watch(draws)
    folder = fit("nemotron", *ALL)
    whole = dict(draws.drawn)
    cut_back(folder, 4)
    draws.drawn.clear()
    fit("nemotron", *ALL, "--ckpt_path=last")
    assert draws.drawn == {step: whole[step] for step in range(4, 12)}


def edited(folder: Path, step: int, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "checkpoints" / f"step-{step:06d}.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def test_another_number_of_processes_is_said(
    fit: Fit, cut_back: CutBack, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit("nemotron", *ALL)
    cut_back(folder, 4)
    edited(folder, 4, lambda checkpoint: checkpoint["random_states"].append(checkpoint["random_states"][0]))
    main(command(folder, "nemotron", *ALL, "--ckpt_path=last"))
    assert "the checkpoint is of 2 processes and this run has 1" in capsys.readouterr().err
    assert record(folder)["status"] == "finished"


@pytest.mark.parametrize(
    "change",
    [
        lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda checkpoint: checkpoint["optimizer_states"].clear() or checkpoint["optimizer_states"].append({"state": 3}),
        lambda checkpoint: checkpoint["loops"].clear(),
        lambda checkpoint: checkpoint["lr_schedulers"][0].update(last_epoch="soon"),
        lambda checkpoint: checkpoint["callbacks"].update(Telemetry=[1]),
        lambda checkpoint: checkpoint.update(random_states=[{"torch": torch.zeros(3)}]),
        lambda checkpoint: checkpoint.update(settings=["model"]),
        lambda checkpoint: checkpoint.update({"pytorch-lightning_version": "whatever"}),
        lambda checkpoint: checkpoint["state_dict"].popitem(),
    ],
    ids=["moments", "optimizer", "loops", "schedule", "callback", "random", "settings", "version", "weights"],
)
def test_a_checkpoint_with_something_else_in_it_is_refused_in_one_sentence(
    change: Callable[[dict[str, Any]], object], fit: Fit, refused: Refused, cut_back: CutBack, command: Command
) -> None:
    folder = fit("nemotron", *ALL)
    cut_back(folder, 4)
    edited(folder, 4, change)
    before = (folder / "metrics.jsonl").read_text()
    told = refused(command(folder, "nemotron", *ALL, "--ckpt_path=last"))
    assert (folder / "metrics.jsonl").read_text() == before
    assert "step-000004.ckpt" in told or "the checkpoint's settings" in told


def test_a_full_disk_ends_the_run_with_the_checkpoint_before_intact(
    fit: Fit, read: Readers, command: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "step-000006.ckpt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    words, folder = command(tmp_path / "run", "nemotron", *ALL), tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        assert f"{folder / 'checkpoints' / 'step-000006.ckpt'} cannot be written: No space left" in refused(words)
    assert record(folder)["status"] == "failed"
    assert read["steps"](folder) == [2, 4]
    main([*words, "--ckpt_path=last"])
    assert read["timeless"](folder) == read["timeless"](fit("nemotron", *ALL, name="whole"))


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("what", "after", "told"),
    [
        ("pathlib.Path.symlink_to", 0, "last.ckpt cannot be written: No space left"),
        ("tensorboard.summary.writer.record_writer.RecordWriter.write", 5, "run cannot be read or written: No space left"),
    ],
)
def test_a_full_disk_is_told_in_one_sentence_whatever_is_written_and_the_run_is_kept(
    what: str, after: int, told: str, command: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, calls = pkgutil.resolve_name(what), []

    def fills(*words: Any) -> Any:
        calls.append(words)
        return full() if len(calls) > after else write(*words)

    monkeypatch.setattr(what, fills)
    assert told in refused(command(tmp_path / "run", "nemotron", *ALL))
    assert record(tmp_path / "run")["status"] == "failed"


def test_a_checkpoint_that_cannot_be_removed_is_told(
    command: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unlink = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.name == "step-000002.ckpt":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    words = ["--checkpoint.every_n_train_steps=2", "--checkpoint.keep=1"]
    assert "step-000002.ckpt cannot be written: " in refused(command(tmp_path / "run", "nemotron", *words))


def test_a_run_whose_first_checkpoint_cannot_be_written_keeps_its_record(
    command: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: full() if Path(other).suffix == ".ckpt" else replace(one, other))
    words = [*ALL, "--trainer.log_every_n_steps=10"]
    assert "step-000002.ckpt cannot be written: No space left" in refused(command(tmp_path / "run", "nemotron", *words))
    assert record(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_tensorboard_shows_no_step_twice(fit: Fit, cut_back: CutBack) -> None:
    folder = fit("nemotron", *ALL)
    cut_back(folder, 6)
    fit("nemotron", *ALL, "--ckpt_path=last")
    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(1, 13))


def test_a_run_in_epochs_goes_on_at_the_end_of_one(fit: Fit, read: Readers, cut_back: CutBack) -> None:
    words = [*ALL, "--trainer.limit_train_batches=5", "--trainer.accumulate_grad_batches=2"]
    folder = fit("ngpt", *words)  # an epoch ends with a step of one micro-batch
    assert 3 in read["steps"](folder)
    before = read["timeless"](folder)
    for step in (6, 3):
        cut_back(folder, step)
        fit("ngpt", *words, "--ckpt_path=last")
        assert read["timeless"](folder) == before
