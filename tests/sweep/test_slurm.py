"""What is submitted, what is found again, and what a job's end means; SLURM itself is made up."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.sweep import slurm, slurm_queue
from ngpt_lab.sweep.claims import Claims
from ngpt_lab.sweep.executor import Executor, Job, serve
from ngpt_lab.sweep.run import PlannedRun
from ngpt_lab.sweep.sites import Demand
from ngpt_lab.sweep.slurm import Slurm, SlurmBody
from ngpt_lab.sweep.slurm_queue import Listed, cancel, jobs_in

FINISHED = {"status": "finished", "steps": 2, "tokens_per_step": 4, "tokens": 8, "final": {"val/loss": 2.0}}


class MadeSlurm:
    """A queue, and what was submitted to it: one list for each call of sbatch."""

    def __init__(self) -> None:
        self.queue: dict[str, str] = {}
        self.comments: dict[str, str] = {}
        self.arrays: list[list[SlurmBody]] = []
        self.parameters: dict[str, Any] = {}
        self.cancelled: list[str] = []

    def submitted(self, job: str) -> None:
        self.queue[job], self.comments[job] = "PENDING", self.parameters["comment"]

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)
        del self.queue[job]

    def end(self, job: str, record: dict[str, Any]) -> None:
        number, _, index = job.partition("_")
        write(self.arrays[int(number)][int(index)].run, record)
        del self.queue[job]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> MadeSlurm:
    made = MadeSlurm()

    class SlurmExecutor:
        def __init__(self, folder: Path, *_: object, python: str) -> None:
            self.folder = folder

        def update_parameters(self, **parameters: Any) -> None:
            made.parameters |= parameters

        @contextmanager
        def batch(self) -> Iterator[None]:
            made.arrays.append([])
            yield

        def submit(self, body: SlurmBody) -> SimpleNamespace:
            job = f"{len(made.arrays) - 1}_{len(made.arrays[-1])}"
            made.arrays[-1].append(body)
            made.submitted(job)
            return SimpleNamespace(job_id=job, paths=SimpleNamespace(stdout=self.folder / f"{job}.out"))

    submitit, core, utils = ModuleType("submitit"), ModuleType("submitit.core"), ModuleType("submitit.core.utils")
    submitit.SlurmExecutor = SlurmExecutor  # type: ignore[attr-defined]
    utils.FailedJobError = RuntimeError  # type: ignore[attr-defined]
    for module in (submitit, core, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(
        slurm_queue, "ask", lambda: {job: Listed(state, made.comments.get(job, "(null)")) for job, state in made.queue.items()}
    )
    monkeypatch.setattr(slurm_queue, "FRESH", -1.0)
    monkeypatch.setattr(slurm, "cancel", made.cancel)
    monkeypatch.setattr(slurm, "SETTLING", 0.0)
    return made


def write(run: PlannedRun, record: dict[str, Any]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "run.json").write_text(json.dumps(record))


def planned(folder: Path, names: str) -> list[PlannedRun]:
    return [PlannedRun(folder / "runs" / name, (), 2, {"arm": name, "budget": 8}) for name in names]


def demand(folder: Path, **more: Any) -> Demand:
    return Demand(folder, 3, **more)


class Stop(Exception):  # noqa: N818
    """Ends who watches."""


def stop() -> None:
    raise Stop


def after_start(executor: Executor, then: Callable[[], None]) -> Executor:
    """Something happens as soon as jobs were started."""
    original = executor.start

    def start(runs: Sequence[tuple[PlannedRun, int]]) -> list[Job]:
        jobs = original(runs)
        then()
        return jobs

    executor.start = start  # type: ignore[method-assign]
    return executor


def test_what_is_ready_is_one_array_and_a_worker_that_comes_later_watches_the_same_jobs(
    made: MadeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, asked = planned(tmp_path, "abc"), demand(tmp_path, workers=2)
    made.queue["77"] = "RUNNING"  # somebody else's business
    site = Slurm(partition="gpu", minutes=90, memory_gb=1.5, sbatch={"constraint": "h100"})
    with pytest.raises(Stop), Claims(tmp_path / "claims") as claims, site.open(asked, claims) as executor:
        serve(runs, after_start(executor, lambda: made.end("0_1", FINISHED)), claims, ended=stop, pause=0)
    assert [[body.run.name for body in array] for array in made.arrays] == [["a", "b", "c"]]
    assert made.parameters["array_parallelism"] == 2
    assert (made.parameters["partition"], made.parameters["time"], made.parameters["mem"]) == ("gpu", 90, "1536MB")
    assert made.parameters["additional_parameters"] == {"signal": "B:USR2@120", "requeue": True, "constraint": "h100"}
    assert "2 job(s) stay with SLURM; the same command watches them again, scancel 0 ends them" in capsys.readouterr().out

    with Claims(tmp_path / "claims") as claims, site.open(asked, claims) as executor:
        found = executor.start(
            [(run, slot) for slot, run in enumerate(runs) if claims.take(run.name, executor.ticket(run))][:1]
        )
        assert not found[0].ended()
        made.end("0_0", FINISHED)
        made.end("0_2", {"status": "failed", "error": "the loss is not finite"})
        assert found[0].ended()
        assert [(run.name, error) for run, error in serve(runs, executor, claims, pause=0)] == [("c", "the loss is not finite")]
    assert len(made.arrays) == 1
    assert made.cancelled == []


def test_a_job_that_slurm_ended_leaves_a_run_to_go_on_with(made: MadeSlurm, tmp_path: Path) -> None:
    (run,) = planned(tmp_path, "a")
    with Claims(tmp_path / "claims") as claims, Slurm().open(demand(tmp_path), claims) as executor:
        cancelled = after_start(executor, lambda: made.end("0_0", {"status": "interrupted"}))
        ((_, error),) = serve([run], cancelled, claims, pause=0)
    assert "SLURM ended its job 0_0 before it was finished" in error
    assert run.record() == {"status": "interrupted"}
    with Claims(tmp_path / "claims") as claims, Slurm().open(demand(tmp_path), claims) as executor:
        assert serve([run], after_start(executor, lambda: made.end("1_0", FINISHED)), claims, pause=0) == []


def test_the_job_of_a_run_that_another_worker_took_over_is_cancelled(made: MadeSlurm, tmp_path: Path) -> None:
    (run,) = planned(tmp_path, "a")

    def take_over() -> None:
        assert Claims(tmp_path / "claims", expiry=-1).take("a")  # to whom everyone seems dead
        write(run, FINISHED)

    with Claims(tmp_path / "claims", beat=0.01) as claims, Slurm().open(demand(tmp_path), claims) as executor:
        assert serve([run], after_start(executor, take_over), claims, pause=0.05) == []
    assert made.cancelled == ["0_0"]


class Killed(BaseException):
    """Ends who submits."""


@pytest.mark.parametrize("names", ["a", "abc"])
def test_jobs_whose_submitter_was_killed_while_sbatch_answered_are_found_again(
    names: str, made: MadeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, last = planned(tmp_path, names), "0_" + str(len(names) - 1)
    original = made.submitted

    def killed(job: str) -> None:
        original(job)
        if job == last:
            raise Killed

    with monkeypatch.context() as patch, Claims(tmp_path / "claims") as claims:
        executor = Slurm().open(demand(tmp_path), claims)
        patch.setattr(made, "submitted", killed)
        patch.setattr(Claims, "release", lambda *_: None)
        with pytest.raises(Killed):
            serve(runs, executor, claims, pause=0)
    if len(names) == 1:  # no array
        made.queue, made.comments = {"0": "PENDING"}, {"0": made.comments["0_0"]}
    made.queue["77"] = "RUNNING"  # somebody else's business
    with Claims(tmp_path / "claims") as claims, Slurm().open(demand(tmp_path), claims) as executor:
        assert [executor.ticket(run) for run in runs] == [body.ticket for body in made.arrays[0]]
        assert all(claims.take(run.name, executor.ticket(run)) for run in runs)
        jobs = executor.start([(run, slot) for slot, run in enumerate(runs)])
        assert [job.name for job in jobs if isinstance(job, slurm.SlurmJob)] == [job for job in made.queue if job != "77"]
        assert all(job.queued() for job in jobs)
    assert len(made.arrays) == 1


def test_a_submission_that_came_to_nothing_is_made_anew(made: MadeSlurm, tmp_path: Path) -> None:
    (run,) = planned(tmp_path, "a")
    with Claims(tmp_path / "claims") as claims, Slurm().open(demand(tmp_path), claims) as executor:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / "a.json").write_text(json.dumps({"ticket": "old", "comment": "gone", "place": 0}))
        made.queue["77"] = "RUNNING"
        assert serve([run], after_start(executor, lambda: made.end("0_0", FINISHED)), claims, pause=0) == []
    assert made.arrays[0][0].ticket != "old"


def test_a_job_that_slurm_does_not_end_is_not_waited_for_for_ever(
    made: MadeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = planned(tmp_path, "a")
    monkeypatch.setattr(slurm, "PATIENCE", 0.0)
    monkeypatch.setattr(slurm, "cancel", made.cancelled.append)
    with Claims(tmp_path / "claims") as claims, Slurm().open(demand(tmp_path), claims) as executor:
        assert claims.take("a", executor.ticket(run))
        executor.start([(run, 0)])[0].kill()
    assert made.cancelled == ["0_0"]
    assert "0_0" in made.queue


def test_squeue_is_asked_for_all_of_this_users_jobs_and_a_silent_scancel_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def silent(command: list[str], **_: object) -> None:
        calls.append(command)
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr("subprocess.run", silent)
    with pytest.raises(InputError, match="SLURM does not answer"):
        slurm_queue.ask()
    cancel("12_3")
    assert {"--all", "--me"} < set(calls[0])
    assert calls[1] == ["scancel", "12_3"]


def test_jobs_are_told_apart_in_arrays_and_alone() -> None:
    assert jobs_in("12|0|RUNNING|ab\n12|11|PENDING|ab\n13|N/A|COMPLETING|(null)\n14|N/A|PENDING|one | two\nlines\n\n") == {
        "12_0": Listed("RUNNING", "ab"),
        "12_11": Listed("PENDING", "ab"),
        "13": Listed("COMPLETING", "(null)"),
        "14": Listed("PENDING", "one | two"),
    }


def test_an_option_of_sbatch_that_is_off_is_left_out(tmp_path: Path) -> None:
    site = Slurm(gpus=0, sbatch={"exclusive": False, "--mail_type": "END", "contiguous": True})
    parameters = site.parameters(demand(tmp_path))
    more = {"signal": "B:USR2@120", "requeue": True, "mail-type": "END", "contiguous": True}
    assert parameters["additional_parameters"] == more
    assert "gpus_per_node" not in parameters


def test_several_nodes_are_srun_s_and_one_node_s_devices_lightning_s(tmp_path: Path) -> None:
    (run,) = planned(tmp_path, "a")
    wide, tall = demand(tmp_path, devices=4, nodes=2, accelerator="gpu"), demand(tmp_path, devices=4, accelerator="gpu")
    site = Slurm(cpus=6)
    assert {key: site.parameters(wide)[key] for key in ("nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node")} == {
        "nodes": 2,
        "ntasks_per_node": 4,
        "cpus_per_task": 6,
        "gpus_per_node": 4,
    }
    assert site.job(run, wide, "t").launcher[:3] == ("srun", "--nodes=2", "--ntasks-per-node=4")
    assert (site.parameters(tall)["ntasks_per_node"], site.parameters(tall)["cpus_per_task"]) == (1, 24)
    assert site.job(run, tall, "t").launcher == ()


def test_a_machine_without_slurm_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match="there is no sbatch here"):
        Slurm().open(demand(tmp_path), Claims(tmp_path / "claims"))
    with pytest.raises(InputError, match="give less notice"):
        Slurm(minutes=1, notice=60)
