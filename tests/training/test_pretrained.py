"""`fit --pretrained`: a run that begins with the backbone of another one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor

from ngpt_lab.training.cli import CLI, DryCLI

CONFIGS = Path(__file__).parents[2] / "configs"
Fit = Callable[..., Path]
Refused = Callable[[list[str]], str]
Command = Callable[..., list[str]]


class First(Callback):
    """Keeps a copy of the weights as they are before anything touches them."""

    weights: dict[str, Tensor]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.fixture
def first(watch: Callable[[Any], None]) -> First:
    callback = First()
    watch(callback)
    return callback


@pytest.fixture(scope="module")
def trained(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, to be left as it is."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    CLI(command(folder, "ngpt", "--trainer.max_steps=3"))
    return folder


@pytest.fixture
def before(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "before", symlinks=True))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"{text} {at}", "label": label} for text, label in (("sea", "cold"), ("fire", "hot")) for at in range(20)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


@pytest.fixture
def tune(table: Path) -> Callable[..., list[str]]:
    """The arguments of a fit of a classifier, which say nothing of the backbone's sizes."""

    def words(folder: Path, pretrained: Path | str, *more: str) -> list[str]:
        settings: dict[str, Any] = {
            "model": {
                "class_path": "ngpt_lab.training.SequenceClassification",
                "init_args": {"num_labels": 2, "pad_token_id": 0},
            },
            "data": {
                "class_path": "ngpt_lab.data.SequenceData",
                "init_args": {"source": {"class_path": "TableFiles", "init_args": {"files": str(table)}}, "batch_size": 4},
            },
        }
        task = table.with_name("task.yaml")
        task.write_text(yaml.safe_dump(settings))
        files = [CONFIGS / "base.yaml", task]
        chosen = [word for file in files for word in ("-c", str(file))]
        own = ["--trainer.max_steps=4", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        return ["fit", *chosen, f"--pretrained={pretrained}", f"--trainer.default_root_dir={folder}", *own, *more]

    return words


def saved(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def arrived(first: First, given: dict[str, Tensor]) -> bool:
    """Whether the backbone began with these weights, bit for bit."""
    ours = {name: value for name, value in first.weights.items() if name.startswith("backbone.")}
    return bool(ours) and all(torch.equal(value, given[name].to(value.dtype)) for name, value in ours.items())


def test_a_language_model_goes_on_with_another_s_weights(before: Path, fit: Fit, first: First) -> None:
    after = fit("nemotron", f"--pretrained={before}", "--model.backbone.attention=eager")
    assert arrived(first, saved(before))
    assert set(first.weights) == set(saved(before))
    config = yaml.safe_load((after / "config.yaml").read_text())
    assert config["model"]["init_args"]["backbone"]["init_args"]["attention"] == "eager"
    assert config["pretrained"] == json.loads((after / "run.json").read_text())["settings"]["pretrained"] == str(before)
    assert json.loads((after / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1


def test_a_task_takes_the_backbone_and_its_settings_and_nothing_else(
    before: Path, first: First, tune: Command, tmp_path: Path
) -> None:
    cli = CLI(tune(tmp_path / "tuned", before / "checkpoints" / "step-000003.ckpt"))
    assert arrived(first, saved(before))
    assert {name for name in first.weights if not name.startswith("backbone.")} == {"head.score.weight"}
    assert not [name for name in first.weights if "lm_head" in name]
    assert cli.model.backbone.dims.d_model == 64
    assert "val/mcc" in cli.model.evaluated


def test_weights_of_few_bits_are_trained_in_the_run_s_own(before: Path, first: First, tune: Command, tmp_path: Path) -> None:
    narrow = {name: value.bfloat16() for name, value in saved(before).items()}
    (before / "checkpoints" / "last.ckpt").unlink()
    torch.save({"state_dict": narrow}, before / "checkpoints" / "last.ckpt")
    CLI(tune(tmp_path / "tuned", before))
    assert arrived(first, narrow)
    assert {value.dtype for value in first.weights.values()} == {torch.float32}


def test_the_run_needs_its_beginning_no_more_and_goes_on_from_its_own_checkpoint(
    before: Path, tune: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "tuned"
    trained = CLI(tune(folder, before, "--checkpoint.every_n_train_steps=2", "--checkpoint.keep=null")).model
    shutil.rmtree(before)
    words = ["-c", str(folder / "config.yaml")]
    last = f"--ckpt_path={folder}/checkpoints/last.ckpt"
    validated = CLI(["validate", *words, last, f"--trainer.default_root_dir={tmp_path}/out"]).model
    assert validated.evaluated["val/loss"] == pytest.approx(trained.evaluated["val/loss"], rel=1e-6)
    whole = saved(folder)
    (folder / "checkpoints" / "step-000004.ckpt").unlink()
    CLI(["fit", *words, f"--trainer.default_root_dir={folder}", "--ckpt_path=last"])
    assert all(torch.equal(value, whole[name]) for name, value in saved(folder).items())
    with pytest.raises(ValueError, match=r"there is no run folder or checkpoint"):
        CLI(["fit", *words, f"--trainer.default_root_dir={tmp_path}/again"])


def test_a_config_file_can_name_it_and_its_parts_win_over_those_of_files_before(
    before: Path, command: Command, tmp_path: Path
) -> None:
    file, ablation = tmp_path / "arm.yaml", tmp_path / "tied.yaml"
    file.write_text(f"pretrained: {before}")
    ablation.write_text(
        "model: {init_args: {backbone: {init_args: {lm_head: {class_path: ngpt_lab.models.ngpt.ScaledLogits, "
        "init_args: {tied: true}}}}}}"
    )
    dry = DryCLI([*command(tmp_path / "run")[1:], "-c", str(ablation), "-c", str(file)])
    plain = DryCLI(command(tmp_path / "run")[1:])
    assert dry.parameters == plain.parameters
    assert dry.settings["pretrained"] == str(before)


def test_a_dry_run_reads_no_weights(before: Path, tune: Command, tmp_path: Path) -> None:
    (before / "checkpoints" / "last.ckpt").unlink()
    (before / "checkpoints" / "last.ckpt").write_text("nothing")
    dry = DryCLI(tune(tmp_path / "tuned", before)[1:])
    assert all(parameter.is_meta for parameter in dry.model.parameters())


def test_what_cannot_be_begun_with_is_refused_in_one_sentence(
    before: Path, refused: Refused, tune: Command, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "refused"
    assert "--pretrained: there is no run folder or checkpoint nowhere" in refused(tune(folder, "nowhere"))
    assert f"--pretrained: {tmp_path} has no config.yaml: give a run's folder" in refused(tune(folder, tmp_path))
    told = refused(tune(folder, before, "--model.backbone.dims.d_ff=32", "--model.backbone.dims.n_layers=1"))
    assert "blocks.0.mlp.up.weight is [256, 64], not [32, 64]" in told
    assert "blocks.1.attention.q.weight has no place" in told
    task = tmp_path / "tuned"
    CLI(tune(task, before))
    assert "lm_head.matrix.weight is missing" in refused([*command(folder), f"--pretrained={task}"])
    assert not folder.exists()
    (before / "checkpoints" / "last.ckpt").unlink()
    assert "has neither checkpoints/last.ckpt nor weights.safetensors" in refused(tune(folder, before))


def test_a_larger_vocabulary_of_the_data_is_refused(before: Path, refused: Refused, tune: Command, tmp_path: Path) -> None:
    config = yaml.safe_load((before / "config.yaml").read_text())
    config["model"]["init_args"]["backbone"]["init_args"]["dims"]["vocab_size"] = 100
    (before / "config.yaml").write_text(yaml.safe_dump(config))
    weights = saved(before)
    small = {n: v[:100] if n.startswith(("backbone.embedding", "backbone.lm_head")) else v for n, v in weights.items()}
    torch.save({"state_dict": small}, before / "checkpoints" / "step-000003.ckpt")
    told = refused(tune(tmp_path / "refused", before))
    assert "dims.vocab_size is 100, but the data has 256 token ids" in told


def test_the_same_command_goes_on_when_the_run_it_began_with_is_gone(before: Path, tune: Command, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    words = tune(
        folder, before, "--checkpoint.every_n_train_steps=2", "--checkpoint.keep=null", "--model.backbone.attention=eager"
    )
    CLI(words)
    whole = saved(folder)
    shutil.rmtree(before)
    for asked in ("--ckpt_path=auto", f"--ckpt_path={folder}/checkpoints/step-000002.ckpt"):
        (folder / "checkpoints" / "step-000004.ckpt").unlink()
        CLI([*words, asked])
        assert all(torch.equal(value, whole[name]) for name, value in saved(folder).items())


@pytest.mark.parametrize("name", ["", "/weights.safetensors"])
def test_the_weights_alone_are_enough_and_a_home_folder_is_found(
    name: str, before: Path, first: First, tune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = saved(before)
    shutil.rmtree(before / "checkpoints")
    alone = {key.removeprefix("backbone."): value for key, value in given.items()}
    save_file(alone, before / "weights.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    CLI(tune(tmp_path / "tuned", f"~/before{name}"))
    assert arrived(first, given)


def test_a_beginning_that_is_named_by_nothing_or_by_half_is_refused(
    before: Path, refused: Refused, tune: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = "--pretrained is empty: name a run's folder or a checkpoint in one, or leave it out"
    folder, file = tmp_path / "refused", tmp_path / "arm.yaml"
    file.write_text("pretrained: ''")
    monkeypatch.chdir(before)  # nothing is not the current folder
    for words in (tune(folder, ""), command(folder, "ngpt", "--pretrained="), command(folder, "ngpt", "-c", str(file))):
        assert empty in refused(words)
    assert f"--pretrain={before}" in refused(command(folder, "ngpt", f"--pretrain={before}"))
    assert not folder.exists()
    assert DryCLI(command(folder, "ngpt", "-c", str(file), "--pretrained=null")[1:]).settings["pretrained"] is None
