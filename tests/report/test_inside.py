"""What a report shows of the models themselves, from a real run's checkpoint."""

import shutil
from pathlib import Path

import pytest

from ngpt_lab.report import collect_runs
from ngpt_lab.report.ablations import effects
from ngpt_lab.report.comparison import Condition, compare
from ngpt_lab.report.inside import look_inside
from ngpt_lab.report.plates import draw_plates
from ngpt_lab.training.cli import CLI

CONFIGS = Path(__file__).parents[2] / "configs"
SHOWN = {"embeddings", "condition-numbers", "stream-path"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the debug size, on a text beside the run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    text = folder.parent / "words.txt"
    text.write_text("the norm of a vector on the sphere is one\n" * 3000)
    files = [CONFIGS / name for name in ("base.yaml", "model/ngpt.yaml", "size/debug.yaml")]
    words = [word for file in files for word in ("-c", str(file))]
    words += ["--data.source=TextFiles", f"--data.source.files={text}"]
    words += [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.accelerator=cpu", "--trainer.max_steps=2", "--data.eval_windows=8", "--seed_everything=1"]
    CLI(["fit", *words])
    return folder


def condition_of(folders: list[Path]) -> Condition:
    return compare(collect_runs(folders), folders[0].parent).conditions[0]


def copies(trained: Path, folder: Path, count: int) -> list[Path]:
    return [Path(shutil.copytree(trained, folder / f"copy{k}")) for k in range(count)]


def test_checkpoints_give_geometry_and_stream_path(trained: Path, tmp_path: Path) -> None:
    folders = copies(trained, tmp_path, 1)
    comparison = compare(collect_runs(folders), tmp_path)
    [only] = comparison.conditions
    inside = look_inside(only, only.arms)
    assert inside.note == "Of one seed an arm: NGPT (seed 1)."
    assert set(inside.frames["path"]["layer"]) == set(inside.frames["conditions"]["layer"]) - {-1}
    plates = draw_plates(only, comparison.metric, effects(comparison), inside)
    assert {plate.path for plate in plates} >= SHOWN


def test_only_a_few_arms_are_looked_into(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ngpt_lab.report.inside.LOOKED_INTO", 1)
    only = condition_of(copies(trained, tmp_path, 2))
    inside = look_inside(only, only.arms)
    assert set(inside.frames["norms"]["arm"]) == {"copy0"}
    assert "No more than 1 are looked into." in inside.note


def test_what_cannot_be_looked_into_is_said(trained: Path, tmp_path: Path) -> None:
    folders = copies(trained, tmp_path, 3)
    only = condition_of(folders)
    for folder in folders:
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(config.replace("words.txt", "gone.txt"))
    weights = [folder / "checkpoints" / "last.ckpt" for folder in folders]
    weights[1].write_bytes(weights[1].read_bytes()[:1000])
    shutil.rmtree(folders[2] / "checkpoints")
    inside = look_inside(only, only.arms)
    assert set(inside.frames["norms"]["arm"]) == {"copy0"}
    assert inside.draw(only.arms).keys() == SHOWN - {"stream-path"}
    for words in ("copy1 could not be looked into: ", "No weights were kept of copy2.", "needs the text of the runs"):
        assert words in inside.note


def test_runs_without_weights_show_nothing_and_say_why(trained: Path, tmp_path: Path) -> None:
    folders = copies(trained, tmp_path, 1)
    shutil.rmtree(folders[0] / "checkpoints")
    only = condition_of(folders)
    inside = look_inside(only, only.arms)
    assert inside.note.startswith("No run kept its weights")
    assert inside.draw(only.arms) == {}
