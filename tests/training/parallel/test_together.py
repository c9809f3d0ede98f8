"""What fails on one of several processes ends all of them with one sentence; a folder of pieces is read with suspicion."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.distributed.checkpoint.api import CheckpointException

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoints import FOLDER, OUTLINE, BrokenCheckpointError, load, outline, step_file, take_name
from ngpt_lab.training.normalize_weights import NormalizeWeights
from ngpt_lab.training.parallel import consolidate_command, folders, launch
from ngpt_lab.training.parallel.pieces import total_norm
from ngpt_lab.training.parallel.together import Sum, first_alone, together
from ngpt_lab.training.resume import newest, put_back

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
STATE = {"state_dict": {"weight": torch.arange(6.0)}, "optimizer_states": [], "global_step": 3}


def fails(error: Exception) -> Any:
    raise error


def told(work: Callable[[], object]) -> str:
    """What a process is told of work that fails."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def one_of_two(rank: int, folder: Path) -> None:
    """Fail in every way, go on, and write down what was told."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    patch = pytest.MonkeyPatch()
    sound, broken = folder / "sound.ckpt", folder / "broken.ckpt"
    lines: list[str] = []
    folders.write_folder(STATE, sound)
    folders.write_folder(STATE, sound)
    if rank == 1:
        patch.setattr(folders, "checksums", lambda *_: fails(FULL))
    lines.append(told(lambda: folders.write_folder(STATE, broken)))
    patch.undo()
    patch.setattr(folders, "write", lambda *_: fails(TypeError("not a tensor")))
    lines.append(told(lambda: folders.write_folder(STATE, sound)))
    patch.undo()
    lines.append(told(lambda: first_alone(lambda: fails(InputError("the disk is full")))))
    lines.append(str(Sum(torch.tensor([1.0, float(rank)])).means()))
    lines.append(str(together(lambda: rank)))
    checkpoint = folders.outline_together(sound)
    lines.append(str(checkpoint["global_step"]))
    together(lambda: None)
    if rank == 0:
        content = next(sound.glob("__0_*")).read_bytes()
        next(sound.glob("__0_*")).write_bytes(content[:-1])
    together(lambda: None)
    lines.append(told(lambda: folders.outline_together(sound)).partition(": its ")[0])
    (folder / f"told-{rank}").write_text("\n".join(lines))
    torch.distributed.destroy_process_group()


def test_what_fails_on_one_process_ends_all_with_one_sentence(tmp_path: Path) -> None:
    multiprocessing.start_processes(one_of_two, args=(tmp_path,), nprocs=2, start_method="spawn")
    broken = f"InputError: {tmp_path / 'broken.ckpt'} cannot be written: No space left on device"
    full = "InputError: the disk is full"
    sound = [
        "[1.0, 0.5]",
        "[0, 1]",
        "3",
        f"BrokenCheckpointError: {tmp_path / 'sound.ckpt'} is not a checkpoint that can be read",
    ]
    first, second = ((tmp_path / f"told-{rank}").read_text().splitlines() for rank in range(2))
    assert first == [broken, "TypeError: not a tensor", full, *sound]
    assert second == [broken, "InputError: process 0 failed: not a tensor", full, *sound]
    assert {path.name for path in tmp_path.iterdir()} == {"sound.ckpt", "told-0", "told-1"}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pieces that one process wrote."""
    folder = tmp_path_factory.mktemp("pieces")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        folders.write_folder(STATE, folder / "whole.ckpt")
    finally:
        torch.distributed.destroy_process_group()
    return folder / "whole.ckpt"


@pytest.mark.parametrize(
    "files",
    [[], None, {"a": 3}, {".metadata": [1]}, {".metadata": ["1", "2"]}, {3: [1, 2], ".metadata": [1, 2]}, {"/a": [1, 2]}],
    ids=str,
)
def test_a_folder_whose_outline_does_not_tell_its_files_is_broken(files: Any, pieces: Path) -> None:
    whole = (pieces / OUTLINE).read_bytes()
    try:
        torch.save(STATE if files is None else files if files == [] else {**STATE, "files": files}, pieces / OUTLINE)
        with pytest.raises(BrokenCheckpointError, match=r"whole\.ckpt .*: its outline\.pt does not tell its files"):
            outline(pieces)
    finally:
        (pieces / OUTLINE).write_bytes(whole)


@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), OSError(errno.EMFILE, "Too many open files")])
@pytest.mark.parametrize("at", ["load", "Reader", "crc"])
def test_a_folder_that_cannot_be_read_now_is_not_taken_for_broken(
    error: OSError, at: str, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = CheckpointException("load", {0: (error, None)})  # type: ignore[dict-item]
    monkeypatch.setattr(folders, at, lambda *_, **__: fails(wrapped if at == "load" else error))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"whole\.ckpt cannot be read now \({error.strerror}\)") as found:
        load(pieces)
    assert not isinstance(found.value, BrokenCheckpointError)


def test_a_folder_without_an_outline_is_broken_and_set_aside_a_second_time_too(tmp_path: Path) -> None:
    for again in range(2):
        step_file(tmp_path, 3).mkdir(parents=True)
        (step_file(tmp_path, 3) / "__0_0.distcp").write_text(str(again))
        with pytest.raises(BrokenCheckpointError, match="none of the 1 checkpoints"):
            newest(tmp_path, lambda _: None)
        put_back(tmp_path, 2, [step_file(tmp_path, 3)])
    assert (tmp_path / FOLDER / "step-000003.ckpt.broken" / "__0_0.distcp").read_text() == "1"
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_checkpoint_that_cannot_be_replaced_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.ckpt").mkdir()
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: fails(FULL) if Path(one).name == "new" else replace(one, other))
    (tmp_path / "new").write_text("new")
    with pytest.raises(OSError, match="No space left"):
        take_name(tmp_path / "new", tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").is_dir()
    monkeypatch.undo()
    take_name(tmp_path / "new", tmp_path / "a.ckpt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.ckpt", "new")]


def test_one_file_is_not_begun_where_the_disk_has_no_room(
    pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fails(FULL))
    with pytest.raises(InputError, match=r"one\.ckpt cannot be written: No space left"):
        consolidate_command.consolidate(pieces, tmp_path / "one.ckpt")
    assert not list(tmp_path.iterdir())


def test_the_norm_of_bfloat16_is_taken_in_float32() -> None:
    gradients = [torch.randn(300, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in range(3)]
    expected = torch.cat(gradients).double().norm()
    assert total_norm(gradients).dtype == torch.float32
    assert float(total_norm(gradients)) == pytest.approx(float(expected), rel=1e-6)
    assert float(total_norm([])) == 0


def test_lengths_of_a_checkpoint_are_put_in_place_once() -> None:
    from ngpt_lab.nn.linear import ReadLinear

    module = torch.nn.ModuleDict({"matrix": ReadLinear(4, 3)})
    torch.nn.init.normal_(module["matrix"].weight)  # type: ignore[arg-type]
    callback = NormalizeWeights(lengths="first")
    callback.load_state_dict({"matrix": torch.full((3, 1), 2.0)})
    callback.keep_first(module)
    kept = callback.state_dict()["matrix"]
    callback.keep_first(module)
    assert callback.state_dict()["matrix"] is kept
    callback.normalize(module)
    torch.testing.assert_close(module["matrix"].weight.norm(dim=1), torch.full((3,), 2.0))  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("rank", [None, "1"])
def test_a_process_ends_also_where_the_first_was_gone_before_it_looked(
    rank: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lightning's processes: others set RANK, and the first is not who started them."""
    started: list[Callable[[], None]] = []
    monkeypatch.setattr(launch.threading, "Thread", lambda target, **_: started.append(target) or SimpleNamespace(start=int))
    monkeypatch.setattr(os, "_exit", lambda code: fails(InputError(f"ended with {code}")))
    monkeypatch.setattr(launch.time, "sleep", lambda _: fails(InputError("it waits")))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(launch.FIRST, str(2**22 + 1))  # no process has such a number
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    launch.end_with_parent.cache_clear()
    try:
        for _ in range(3):
            launch.end_with_parent()
    finally:
        launch.end_with_parent.cache_clear()
    [watch] = started
    with pytest.raises(InputError, match="ended with 1" if rank is None else "it waits"):
        watch()
