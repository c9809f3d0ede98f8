"""A sweep through a real SLURM, disturbed in all ways at once: a requeue, time that is up, and who submitted it killed."""

import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm
SLURM = ("--executor", "slurm", "--executor.minutes", "30")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    found = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).with_name("slurm_cluster.py"))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    with module.started(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def command(cluster: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env={**os.environ, **cluster}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def job_of(sweep: Any, run: str) -> str:
    return json.loads((sweep.folder / "jobs" / f"{run}.json").read_text())["job"]


def states(cluster: dict[str, str]) -> dict[str, str]:
    lines = command(cluster, "squeue", "-hr", "-o", "%i %T").splitlines()
    return dict(line.split() for line in lines)


def test_a_disturbed_sweep_comes_to_what_it_comes_to_on_one_machine(
    cluster: dict[str, str], spec: Path, local: Any, tools: dict[str, Any], tmp_path: Path
) -> None:
    sweep, until = tools["Sweep"](spec, tmp_path / "out", cluster), tools["until"]
    with sweep.served(*SLURM) as first:
        until(lambda: (sweep.folder / "sweep.json").exists() or first.poll() is not None)
        (sweep.folder / "hold").touch()
        until(lambda: len(sweep.held) == 2 or first.poll() is not None)
        assert first.poll() is None, first.communicate()[0]
        requeued, timed_out = sweep.held
        jobs = [job_of(sweep, run) for run in (requeued, timed_out)]
        arrays = {job_of(sweep, run.stem).partition("_")[0] for run in (sweep.folder / "jobs").glob("*.json")}
        assert len(arrays) == 1
        first.kill()
    command(cluster, "scontrol", "requeue", jobs[0])
    number = command(cluster, "squeue", "-h", "-o", "%A", f"--jobs={jobs[1]}").strip()
    with subprocess.Popen(  # what SLURM sends when a job's time is nearly up; scancel itself waits for more
        ["scancel", "--batch", "--signal=USR2", number], env={**os.environ, **cluster}, stderr=subprocess.DEVNULL
    ) as sent:
        time.sleep(2)
        sent.kill()
    (sweep.folder / "hold").unlink()
    for job in jobs:
        until(lambda job=job: states(cluster).get(job) == "PENDING")
        command(cluster, "scontrol", "update", f"JobId={job}", "StartTime=now")  # else in two minutes
    with sweep.served(*SLURM) as second:
        told, _ = second.communicate(timeout=900)
    assert second.returncode == 0, told

    tools["assert_same"](sweep, local)
    begun = {run.name: [start["step"] for start in sweep.starts(run.name)] for run in sweep.runs}
    assert begun == {run.name: [0, 25] if run.name in (requeued, timed_out) else [0] for run in sweep.runs}
    assert states(cluster) == {}


def test_a_run_of_two_nodes_is_trained_by_a_process_on_each(
    cluster: dict[str, str], spec: Path, tools: dict[str, Any], tmp_path: Path
) -> None:
    (spec.parent / "spread").mkdir()
    for number, asked in {"one": "devices: 2", "two": "num_nodes: 2, devices: 1"}.items():
        strategy = "{class_path: lightning.pytorch.strategies.DDPStrategy, init_args: {process_group_backend: gloo}}"
        (spec.parent / "spread" / f"{number}.yaml").write_text(
            "question: Together?\nbases:\n  nemotron:\n"
            f"    configs: [model/nemotron.yaml, size/debug.yaml, ../text.yaml, {number}-node.yaml]\n"
            "compare: {baseline: nemotron}\nseeds: [1]\n"
        )
        (spec.parent / "spread" / f"{number}-node.yaml").write_text(f"trainer: {{{asked}, strategy: {strategy}}}\n")
    one = tools["Sweep"](spec.parent / "spread" / "one.yaml", tmp_path / "one")
    one.carried_out("--workers", "1", "--executor", "local", "--executor.threads", "1")
    two = tools["Sweep"](spec.parent / "spread" / "two.yaml", tmp_path / "two", cluster)
    two.carried_out(*SLURM)
    assert list(two.metrics().values()) == list(one.metrics().values())
    (run,) = two.runs
    assert json.loads((run / "run.json").read_text())["settings"]["trainer.num_nodes"] == 2
