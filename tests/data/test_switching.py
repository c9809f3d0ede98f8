"""Training that changes from one text to another and back."""

import json
from pathlib import Path

import pytest

from ngpt_lab.data import BPE, SwitchingTextDataModule, TextFiles
from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import CLI

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two files with no letter in common."""
    folder = tmp_path_factory.mktemp("texts")
    for name, letters in (("lower", "abcdefghijk"), ("upper", "NOPQRSTUVWXYZ")):
        lines = (" ".join(letters[(i * i + j) % len(letters)] * 3 for j in range(8)) for i in range(800))
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def data(texts, switch_every=4, **settings):
    first, second = (TextFiles(str(texts / f"{name}.txt")) for name in ("lower", "upper"))
    module = SwitchingTextDataModule(
        first, second, switch_every, **{"seq_len": 16, "batch_size": 2, "eval_windows": 4, **settings}
    )
    module.prepare_data()
    return module


def test_training_goes_from_the_first_text_to_the_second_and_back(texts):
    module = data(texts, switch_every=3)
    batches = iter(module.train_dataloader())
    kinds = ["upper" if any(65 <= byte <= 90 for byte in next(batches)[0].flatten().tolist()) else "lower" for _ in range(9)]
    assert kinds == ["lower"] * 3 + ["upper"] * 3 + ["lower"] * 3
    assert len(module.train_dataloader()) > 10**8


def test_validation_reads_both_texts_and_test_the_first(texts):
    module = data(texts)
    first, second = module.val_dataloader()
    assert first.windows.stream is module.corpus.validation
    assert second.windows.stream is module.other.validation
    assert module.test_dataloader().windows.stream is module.corpus.test


def test_the_record_tells_of_both_texts(texts):
    told = data(texts).describe()
    assert told["source"] == "lower.txt"
    assert told["other"]["source"] == "upper.txt"
    assert told["switch_every"] == 4
    assert told["fingerprint"] not in (data(texts).corpus.fingerprint, told["other"]["fingerprint"])
    json.dumps(told)


def test_a_text_that_does_not_change_is_refused(texts):
    same = TextFiles([str(texts / "lower.txt")])
    twice = SwitchingTextDataModule(same, same, 4, seq_len=16)
    twice.prepare_data()
    with pytest.raises(InputError, match=r"are the same text \(lower.txt\)"):
        twice.setup("fit")
    with pytest.raises(InputError, match=r"BPE would be trained anew for the second text"):
        data(texts, tokenizer=BPE(300))
    with pytest.raises(InputError, match=r"--data.switch_every is 0"):
        data(texts, switch_every=0)


@pytest.fixture
def fit(texts, tmp_path):
    files = [CONFIGS / f"{name}.yaml" for name in ("base", "model/ngpt", "size/debug")]
    config = tmp_path / "two.yaml"
    parts = {
        name: {"class_path": "ngpt_lab.data.TextFiles", "init_args": {"files": str(texts / f"{file}.txt")}}
        for name, file in (("first", "lower"), ("second", "upper"))
    }
    init_args = {**parts, "switch_every": 4, "seq_len": 32, "batch_size": 4, "eval_windows": 8}
    config.write_text(json.dumps({"data": {"class_path": "ngpt_lab.data.SwitchingTextDataModule", "init_args": init_args}}))
    words = [word for file in (*files, config) for word in ("-c", str(file))]
    words += ["--trainer.max_steps=12", "--trainer.val_check_interval=4", "--checkpoint.every_n_train_steps=6"]

    def run(name, *more):
        folder = tmp_path / name
        quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        CLI(["fit", *words, *quiet, f"--trainer.default_root_dir={folder}", *more])
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


def test_a_run_logs_both_losses_and_forgets(fit, tmp_path):
    rows = fit("run", "--trainer.max_steps=72", "--data.switch_every=24", "--trainer.val_check_interval=24")
    evaluated = {row["step"]: row for row in rows if "val/loss" in row}
    assert set(evaluated) == {24, 48, 72}
    assert evaluated[48]["val/loss"] > evaluated[24]["val/loss"] > evaluated[72]["val/loss"]
    assert evaluated[48]["val_other/loss"] < evaluated[24]["val_other/loss"]
    final = json.loads((tmp_path / "run" / "run.json").read_text())["final"]
    assert final["val_other/loss"] == evaluated[72]["val_other/loss"]


def test_a_run_that_is_resumed_in_the_second_phase_ends_like_one_that_was_not(fit, tmp_path):
    def losses(rows):
        return [row["train/loss"] for row in rows if "train/loss" in row]

    whole = losses(fit("whole"))
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-000006.ckpt"
    assert losses(fit("resumed", f"--ckpt_path={checkpoint}")) == whole[6:]
    with pytest.raises(InputError, match=r"data.switch_every 4 and this run has 5"):
        fit("other", f"--ckpt_path={checkpoint}", "--data.switch_every=5")
