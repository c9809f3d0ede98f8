"""A checkpoint file is read as it was written, or told to be broken; and nothing in it is ever carried out."""

import errno
import os
import pickle
import resource
import signal
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoint_form import check_form, leaves
from ngpt_lab.training.checkpoints import BrokenCheckpointError, SafeCheckpointIO, load, step_files
from ngpt_lab.training.resume import newest, origin

STATE = {
    "state_dict": {"weight": torch.arange(6.0), "other": torch.full((3, 2), 0.1)},
    "global_step": 3,
    "loops": {"fit": {"done": 3, "share": 0.5, "name": "a", "none": None}},
    "random_states": [{"torch": torch.arange(5, dtype=torch.uint8)}],
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def told_or_the_same(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of archives that look like something else
            found = load(path)
    except InputError:
        return True
    return same(found, STATE)


# 16 makes a record of the archive's directory pass for a folder, which torch reads as whatever is in memory.
@pytest.mark.parametrize("flip", [1, 16, 255])
def test_every_flipped_byte_is_told_or_changes_nothing(flip: int, tmp_path: Path) -> None:
    path = tmp_path / "step-000003.ckpt"
    SafeCheckpointIO().save_checkpoint(STATE, path)
    whole = path.read_bytes()
    wrong = [
        at for at in range(len(whole)) if not told_or_the_same(path, whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    ]
    assert wrong == []


def test_every_truncation_is_told(tmp_path: Path) -> None:
    path = tmp_path / "step-000003.ckpt"
    SafeCheckpointIO().save_checkpoint(STATE, path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="is not a checkpoint that can be read"):
            load(path)


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "carried out"),)


def test_code_in_a_checkpoint_is_not_carried_out(tmp_path: Path) -> None:
    torch.save({**STATE, "callbacks": Bomb(tmp_path)}, tmp_path / "zip.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path)))
    torch.save({**STATE, "callbacks": Bomb(tmp_path)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("zip", "pickle", "old"):
        with pytest.raises(InputError, match="is not a checkpoint that can be read") as refused:
            load(tmp_path / f"{name}.ckpt")
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "carried out").exists()


def test_an_archive_that_would_unpack_to_more_than_it_is_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps([1]))
        archive.writestr("bomb/data/0", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="not stored as torch stores them"):
        load(path)


def test_a_tensor_larger_than_its_record_is_not_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1234)}, tmp_path / "small.ckpt")
    with zipfile.ZipFile(tmp_path / "small.ckpt") as small, zipfile.ZipFile(tmp_path / "huge.ckpt", "w") as huge:
        for name in small.namelist():
            # 1234 as pickle writes it, and a thousand times as much: sizes in the description, not of the bytes.
            huge.writestr(name, small.read(name).replace(b"M\xd2\x04", b"J\xd0\xd4\x12\x00"))
    with pytest.raises(InputError, match="is not a checkpoint that can be read"):
        load(tmp_path / "huge.ckpt")


def whole_form() -> dict[str, Any]:
    return {
        **STATE,
        "epoch": 0,
        "pytorch-lightning_version": "2.6.6",
        "callbacks": {},
        "optimizer_states": [{}],
        "lr_schedulers": [{"base_lrs": [0.1]}],
    }


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([1, 2], "it holds a list"),
        ({"epoch": 0}, "it has no state_dict"),
        (whole_form() | {"global_step": torch.tensor(3)}, "its global_step is a Tensor"),
        (whole_form() | {"global_step": True}, "its global_step is a bool"),
        (whole_form() | {"state_dict": {"weight": 3}}, "weight of its weights is no tensor"),
        (whole_form() | {"state_dict": [1]}, "its state_dict is a list"),
        (whole_form() | {"lr_schedulers": [{"base_lrs": [torch.zeros(2)]}]}, "its lr_schedulers holds a Tensor"),
        (whole_form() | {"loops": {"fit": {torch.Size([2]): torch.zeros(2)}}}, "its loops holds a Tensor"),
    ],
)
def test_what_is_no_runs_checkpoint_is_refused_in_one_sentence(wrong: Any, told: str, tmp_path: Path) -> None:
    torch.save(wrong, tmp_path / "wrong.ckpt")
    with pytest.raises(InputError, match=f"is no run's checkpoint: {told}"):
        origin(tmp_path / "wrong.ckpt")


@pytest.mark.parametrize("told", ["unable to mmap 8 bytes", "DefaultCPUAllocator: can't allocate memory"])
def test_what_the_machine_refuses_is_no_fault_of_the_file(told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError(told)

    torch.save(whole_form(), tmp_path / "whole.ckpt")
    monkeypatch.setattr(torch, "load", refuses)
    with pytest.raises(InputError, match="cannot be read now") as refused:
        load(tmp_path / "whole.ckpt")
    assert not isinstance(refused.value, BrokenCheckpointError)


def test_a_tree_that_holds_itself_is_walked_through_once() -> None:
    deep: list[Any] = [1]
    for _ in range(100):
        deep = [deep, deep]
    deep[0].append(deep)
    assert list(leaves(deep)) == [1]
    check_form(whole_form(), Path("whole.ckpt"))


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "checkpoints").mkdir()
    before, path = (tmp_path / "checkpoints" / f"step-00000{step}.ckpt" for step in (1, 2))
    io = SafeCheckpointIO()
    io.save_checkpoint(whole_form() | {"global_step": 1}, before)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=rf"{path} cannot be written: No space left"):
        io.save_checkpoint(whole_form(), path)
    assert list(step_files(tmp_path).values()) == list(before.parent.iterdir()) == [before]
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "step-000002.ckpt"
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=f"{path} cannot be written: File too large"):
            SafeCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.zeros(1_000_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []
