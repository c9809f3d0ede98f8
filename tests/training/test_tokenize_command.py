import errno
import glob
import os
import signal

import pytest

from ngpt_lab.cli import main as command_line
from ngpt_lab.errors import InputError
from ngpt_lab.training.tokenize_command import main


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("NGPT_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "text.txt").write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(200)))
    path = tmp_path / "data.yaml"
    path.write_text(
        f"""
trainer:
  max_steps: 3
data:
  class_path: ngpt_lab.data.TextDataModule
  init_args:
    source:
      class_path: ngpt_lab.data.TextFiles
      init_args:
        files: {tmp_path}/text.txt
"""
    )
    return ["-c", str(path)]


def test_a_store_is_made_told_and_verified_when_it_is_asked_for_again(config, tmp_path, capsys):
    arguments = [*config, "--data.tokenizer=BPE", "--data.tokenizer.vocab_size=300", "--shard_tokens", "500", "--processes=1"]
    main(arguments)
    told = capsys.readouterr().out
    (folder,) = (tmp_path / "cache" / "tokens").iterdir()
    assert f"{folder}: made" in told
    assert "text.txt, BPE 300, 300 ids" in told
    shards = len(list(folder.glob("train-*.bin")))
    row = next(line for line in told.splitlines() if "train" in line)
    assert [cell.strip() for cell in row.split("\u2502")][5] == str(shards)
    main(arguments)
    assert f"{folder}: was made before, and every checksum is right" in capsys.readouterr().out
    shard = folder / "train-00001.bin"
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"train-00001\.bin is damaged"):
        main(arguments)


def test_names_are_shown_as_they_are(config, tmp_path, capsys):
    named = tmp_path / "a[red]b.txt"
    (tmp_path / "text.txt").rename(named)
    main([*config, f"--data.source.files={glob.escape(str(named))}"])
    assert named.name in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_it_ends_when_it_is_asked_to(number, config, monkeypatch, capsys):
    monkeypatch.setattr("ngpt_lab.data.store.build", lambda *_: os.kill(os.getpid(), number))
    # What the signal does where nobody listens: end everything.
    before = signal.signal(number, lambda *_: pytest.fail("nobody listens"))
    try:
        with pytest.raises(SystemExit) as stop:
            command_line(["tokenize", *config])
    finally:
        signal.signal(number, before)
    assert stop.value.code == 143
    told = f"ngpt-lab: interrupted by {number.name}; the same command goes on with what is missing\n"
    assert capsys.readouterr().err.endswith(told)


def test_what_the_system_refuses_is_one_sentence(config, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there.bin")

    monkeypatch.setattr("ngpt_lab.data.store.build", full)
    with pytest.raises(SystemExit) as stop:
        command_line(["tokenize", *config])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "ngpt-lab: there.bin: No space left on device\n"


def test_a_folder_can_be_named(config, tmp_path):
    main([*config, f"--data.store={tmp_path}/mine"])
    assert (tmp_path / "mine" / "manifest.json").is_file()
    main(["--data=ngpt_lab.data.TextDataModule", "--data.source=TokenStore", f"--data.source.folder={tmp_path}/mine"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--processes", "0"], "processes is 0"),
        (["--processes", "x"], "invalid int value: 'x'"),
        (["--shard_tokens", "0"], "shard_tokens is 0"),
        (["--data.tokenizer=BPE", "--data.tokenizer.vocab_size=3"], "vocab_size of BPE is 3"),
        (["--data.tokenizer=Nothing"], "Nothing"),
        (["--data.colour=red"], "colour"),
        (["--model.seq_len=3"], r"--model\.seq_len"),
        (["-c", "none.yaml"], r"none\.yaml cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(config, tmp_path, arguments, complaint):
    with pytest.raises(InputError, match=complaint) as refused:
        main([*config, *arguments])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert not (tmp_path / "cache").exists()
