"""How a pool shares out GPUs and cores, and what its engine does not load."""

import subprocess
import sys

import pytest

from ngpt_lab.sweep import pool as pools
from ngpt_lab.sweep.pool import LocalPool, default_workers


@pytest.mark.parametrize(
    ("accelerator", "devices", "gpus", "expected"),
    [("auto", 1, 0, 3), ("auto", 1, 1, 1), ("gpu", 1, 2, 2), ("cuda", 2, 4, 2), ("cuda", 2, 5, 2), ("cpu", 1, 2, 3)],
)
def test_runs_go_side_by_side_on_the_gpus_or_the_cores_this_process_may_use(
    accelerator: str, devices: int, gpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "visible_gpus", lambda: [str(index) for index in range(gpus)])
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert default_workers(18, accelerator, devices) == expected
    assert default_workers(1, accelerator, devices) == 1


def test_gpus_and_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2,GPU-1,0")
    single, double = LocalPool(4, "gpu").environments, LocalPool(3, "gpu", devices=2).environments
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in single] == ["3", "2", "GPU-1", "0"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in double] == ["3,2", "GPU-1,0", "3,2"]
    assert single[0]["OMP_NUM_THREADS"] == "2"
    assert LocalPool(16, "cpu").environments[9] == {"OMP_NUM_THREADS": "1"}
    assert LocalPool(2, "cpu", threads=1).environments[0] == {"OMP_NUM_THREADS": "1"}


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ValueError, match=r"trainer.devices is 4, but this machine has 2 GPUs"):
        LocalPool(1, "gpu", devices=4)


def test_nothing_of_the_engine_loads_torch_before_a_run_does() -> None:
    code = "import sys, ngpt_lab.sweep.pool, ngpt_lab.sweep.executor, ngpt_lab.sweep.claims; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
