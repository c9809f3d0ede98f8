import logging
import os

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ngpt_lab.data import TextDataModule, TextFiles, WithinDocuments
from ngpt_lab.errors import InputError

pytestmark = [
    # lightning 2.6 asks torch 2.13 a question in a deprecated way, whatever the loader.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.* is deprecated:FutureWarning"),
    # A run that goes on writes its checkpoints beside the ones it has.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty:UserWarning"),
]


class Reader(LightningModule):
    """Remembers what it was given; stops with an error at batch `dies_at` of this process."""

    def __init__(self, dies_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.dies_at = dies_at
        self.seen = []

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.dies_at:
            raise RuntimeError("killed")
        self.seen.append(batch[0].tolist())
        return self.weight * batch[0].float().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(1 + k % 126 for k in range(1000)))
    return str(path)


def trainer(folder, accumulate=1, steps=8, **settings):
    checkpoint = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    return Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, accumulate_grad_batches=accumulate, callbacks=[checkpoint],
        val_check_interval=5, check_val_every_n_epoch=None, logger=False, enable_progress_bar=False,
        enable_model_summary=False, **settings,
    )  # fmt: skip


def data(text, **settings):
    return TextDataModule(TextFiles(text), **{"seq_len": 8, "batch_size": 4, "eval_windows": 5, "processes": 1, **settings})


def prepared(module):
    module.prepare_data()
    module.setup("fit")
    return module


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("dies_after_steps", [3, 4])
def test_a_run_that_goes_on_sees_the_batches_an_uninterrupted_one_sees(tmp_path, text, accumulate, dies_after_steps):
    whole = Reader()
    trainer(tmp_path / "whole", accumulate).fit(whole, datamodule=data(text))
    assert len(whole.seen) == 8 * accumulate

    killed, resumed = Reader(dies_at=dies_after_steps * accumulate + accumulate - 1), Reader()
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "killed", accumulate).fit(killed, datamodule=data(text))
    checkpoint = tmp_path / "killed" / f"step={dies_after_steps // 2 * 2}.ckpt"
    trainer(tmp_path / "killed", accumulate).fit(resumed, datamodule=data(text), ckpt_path=checkpoint)
    assert resumed.seen == whole.seen[dies_after_steps // 2 * 2 * accumulate :]
    assert resumed.weight.item() == whole.weight.item()


def test_the_loader_state_is_the_number_of_the_next_batch(text):
    loader = prepared(data(text)).train_dataloader()
    batches = iter(loader)
    read = [next(batches)[0] for _ in range(5)]
    assert loader.state_dict() == {"next": 5}
    other = prepared(data(text)).train_dataloader()
    other.load_state_dict({"next": 3})
    assert torch.equal(next(iter(other))[0], read[3])


@pytest.mark.parametrize("setting", [{"seed": 1}, {"seq_len": 4}, {"batch_size": 2}, {"windows": WithinDocuments}])
def test_training_does_not_go_on_over_other_batches(tmp_path, text, setting):
    trainer(tmp_path, steps=2).fit(Reader(), datamodule=data(text))
    ((name, value),) = setting.items()
    with pytest.raises(InputError, match=rf"data\.{name} .* and this run has {getattr(value, '__name__', value)}"):
        trainer(tmp_path).fit(Reader(), datamodule=data(text, **setting), ckpt_path=tmp_path / "step=2.ckpt")


def test_a_checkpoint_is_evaluated_on_any_text(tmp_path, text):
    trainer(tmp_path, steps=2).fit(Reader(), datamodule=data(text))
    trainer(tmp_path).test(Reader(), datamodule=data(text, seq_len=4), ckpt_path=tmp_path / "step=2.ckpt", verbose=False)


def test_the_shared_share_is_said_once_when_a_run_starts(caplog):
    module = TextDataModule(processes=1)
    module.prepare_data()
    with caplog.at_level(logging.INFO):
        module.setup("fit")
        module.setup("test")
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Data:")]
    assert f"{module.corpus.shared_share['validation']:.2%}" in said
    assert "standard library of Python 3." in said


def test_the_record_says_what_was_read():
    record = prepared(TextDataModule(seq_len=32, seed=3)).describe()
    assert record["windows"] == "AcrossDocuments"
    assert len(record["fingerprint"]) == 64
    assert record["bytes"] == record["tokens"]
    assert set(record["bytes"]) == {"train", "validation", "test"}
    assert (record["seq_len"], record["seed"], record["vocab_size"], record["tokenizer"]) == (32, 3, 256, "bytes")


def test_a_sequence_longer_than_the_data_is_refused_with_both_numbers(text):
    assert len(prepared(data(text, seq_len=50)).val_dataloader()) == 1
    with pytest.raises(InputError, match=r"seq_len 51 is too long for the data: validation .* has 51 tokens, .* needs 52"):
        prepared(data(text, seq_len=51))


def test_data_that_is_not_prepared_says_how(text):
    with pytest.raises(InputError, match="make them with ngpt-lab tokenize"):
        data(text).setup("fit")


@pytest.mark.parametrize("name", ["seq_len", "batch_size", "eval_windows"])
def test_sizes_below_one_are_refused(text, name):
    with pytest.raises(InputError, match=rf"--data\.{name} is 0"):
        data(text, **{name: 0})


def test_there_is_a_process_for_every_core_where_the_system_tells_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert TextDataModule().processes == 3
