"""How executors are named and set on the command line."""

from pathlib import Path

import pytest

from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.sweep.executor_option import read_site, split
from ngpt_lab.sweep.ray_tasks import Ray
from ngpt_lab.sweep.sites import Local
from ngpt_lab.sweep.slurm import Slurm


def test_words_about_the_executor_are_told_from_the_others_wherever_they_stand() -> None:
    ours, others = split(["--executor.minutes", "5", "spec.yaml", "--executor=ray", "--workers", "3", "--executor", "slurm"])
    assert others == ["spec.yaml", "--workers", "3"]
    assert ours == ["--executor.minutes=5", "--executor=ray", "--executor=slurm"]


def test_a_setting_may_come_first_and_may_have_an_executors_name_for_its_value() -> None:
    for words in (["--executor.partition", "local"], ["--executor.partition=local"]):
        for all_words in ([*words, "--executor", "slurm"], ["--executor=slurm", *words]):
            site = read_site(split(all_words)[0])
            assert isinstance(site, Slurm)
            assert site.partition == "local"


def test_an_executor_is_a_short_name_a_class_path_or_a_file_with_its_settings(tmp_path: Path) -> None:
    assert isinstance(read_site([]), Local)
    site = read_site(split(["--executor", "slurm", "--executor.partition", "gpu", "--executor.sbatch.exclusive", "true"])[0])
    assert isinstance(site, Slurm)
    assert (site.partition, site.sbatch) == ("gpu", {"exclusive": True})
    for name in ("slurm", "ngpt_lab.sweep.slurm.Slurm"):
        (tmp_path / "site.yaml").write_text(f"class_path: {name}\ninit_args: {{minutes: 7, setup: [module load cuda]}}\n")
        site = read_site(split([f"--executor={tmp_path / 'site.yaml'}", "--executor.cpus=3"])[0])
        assert isinstance(site, Slurm)
        assert (site.minutes, site.cpus, site.setup) == (7, 3, ["module load cuda"])
    (tmp_path / "bare.json").write_text('{"class_path": "local"}')
    assert isinstance(read_site([f"--executor={tmp_path / 'bare.json'}"]), Local)
    site = read_site(["--executor=ngpt_lab.sweep.ray_tasks.Ray", "--executor.resources={h100: 1}"])
    assert isinstance(site, Ray)
    assert site.resources == {"h100": 1}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--executor", "slrum"], "local, slurm, ray"),
        (["--executor", "slurm", "--executor.partitoin", "gpu"], "partitoin"),
        (["--executor", "slurm", "--executor.minutes", "soon"], "minutes"),
        (["--executor", "slurm", "--executor.minutes", "0"], "executor.minutes is 0: at least 1 is needed"),
        (["--executor", "local", "--executor.threads", "0"], "executor.threads is 0"),
        (["--executor", "missing.yaml"], "missing.yaml: there is no such file"),
        (["--executor", "list.yaml"], "list.yaml names no executor: write class_path: local or slurm or ray"),
        (["--executor", "broken.yaml"], "broken.yaml is no YAML"),
        (["--executor"], "local, slurm, ray"),
        (["--executor.minutes", "5"], "--executor.minutes is a setting of an executor: name that too"),
        (["--executor", "slurm", "--executor.memory_gb", "0"], "executor.memory_gb is 0.0: more than 0 is needed"),
        (["--executor", "slurm", "--executor.memory_gb", ".inf"], "executor.memory_gb is inf"),
        (["--executor", "slurm", "--executor.gpus", "-1"], "executor.gpus is -1: more than 0 is needed"),
        (["--executor", "ray", "--executor.memory_gb", "-2"], "executor.memory_gb is -2"),
        (["--executor", "ray", "--executor.gpus", "-1"], "executor.gpus is -1"),
        (["--executor", "ray", "--executor.gpus", "1.5"], "executor.gpus is 1.5: Ray shares out parts of one"),
        (["--executor", "ray", "--executor.resources", "{h100: 0}"], r"executor.resources.h100 is 0.*: more than 0 is needed"),
        (["--executor", "slurm", "--executor.sbatch", "{signal: USR1@5}"], "executor.sbatch.signal is set by executor.notice"),
        (["--executor", "slurm", "--executor.sbatch", "{cpus_per_task: 2}"], "executor.sbatch.cpus-per-task is set by"),
        (["--executor", "slurm", "--executor.sbatch", "{array: 0-3}"], "executor.sbatch.array is the executor's own"),
        (["--executor", "slurm", "--executor.sbatch", "{requeue: false}"], "executor.sbatch.requeue is the executor's own"),
    ],
)
def test_what_no_executor_knows_is_told_in_a_sentence(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("[slurm]")
    (tmp_path / "broken.yaml").write_text("class_path: [")
    with pytest.raises(InputError, match=told) as problem:
        read_site(split(words)[0])
    assert "\n" not in str(problem.value)


def test_a_package_or_a_command_that_is_missing_is_told_before_anything_is_trained(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    spec = write(seeds=[1], budgets=[512])  # type: ignore[operator]
    with pytest.raises(SystemExit) as stop:
        main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--executor", "slurm"])
    assert stop.value.code == 2
    assert "there is no sbatch here" in capsys.readouterr().err
