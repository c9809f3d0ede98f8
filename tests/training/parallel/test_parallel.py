"""Runs over several processes come to what one process comes to."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.training.checkpoint_form import leaves
from ngpt_lab.training.checkpoints import is_folder, load, step_file
from ngpt_lab.training.resume import newest

WORKER = Path(__file__).parent / "worker.py"
STEPS = 20
SIZES = (
    # What two or four processes cannot share evenly: rows of the vocabulary, hidden channels.
    "--model.backbone.dims.vocab_size=257",
    "--model.backbone.dims.d_ff=203",
    "--model.backbone.dims.n_kv_heads=4",
    "--data.seq_len=32",
    "--data.eval_windows=8",
    f"--trainer.max_steps={STEPS}",
    f"--trainer.val_check_interval={STEPS}",
    "--checkpoint.every_n_train_steps=10",
    "--telemetry.scales_every_n_steps=20",
    "--trainer.logger=false",
    # Adam's first steps take the sign of a gradient, however small: noise would decide.
    "--model.optimizer.eps=1e-6",
)
BIASES = (
    "--model.backbone.attention_bias=true",
    "--model.backbone.mlp=ngpt_lab.nn.plain.UngatedMLP",
    "--model.backbone.mlp.bias=true",
)
# One with every scale, at the lengths it begins with; one with every bias, and the embedding tied.
ABLATIONS = Path(__file__).parents[3] / "configs" / "ablation"
MODELS = {
    "ngpt": ("-c", str(ABLATIONS / "scalar_s_qk.yaml"), "--normalize_weights.lengths=first"),
    "nemotron": ("-c", str(ABLATIONS / "tied_embeddings.yaml"), *BIASES),
}


def settings(folder, model, command, *more):
    return command(folder, model, *MODELS[model], *SIZES, *more)


def on(strategy, processes, sharded=False):
    return [f"--trainer.strategy={strategy}", f"--trainer.devices={processes}", f"--checkpoint.sharded={str(sharded).lower()}"]


def carry_out(jobs, processes, folder):
    """Run jobs in so many processes; they end with this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    words = [str(processes), str(port), str(folder / "jobs.json")]
    started = [
        subprocess.Popen([sys.executable, WORKER, str(rank), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(processes)
    ]
    try:
        told = [process.communicate(timeout=500)[0].decode() for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(told)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, command):
    """The runs of one process."""
    from ngpt_lab.training.cli import CLI

    folder = tmp_path_factory.mktemp("alone")
    for model in MODELS:
        CLI(settings(folder / model, model, command))
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, command):
    """Runs of two processes."""
    folder = tmp_path_factory.mktemp("two")
    jobs = [
        settings(folder / "ngpt-ddp", "ngpt", command, *on("ddp", 2)),
        settings(folder / "ngpt-fsdp2", "ngpt", command, *on("fsdp2", 2, sharded=True)),
        settings(folder / "ngpt-tp", "ngpt", command, *on("tp", 2)),
        settings(folder / "nemotron-fsdp2", "nemotron", command, *on("fsdp2", 2)),
        settings(folder / "nemotron-tp", "nemotron", command, *on("tp", 2, sharded=True)),
    ]
    for name, source, strategy in (("ngpt-other", "ngpt-fsdp2", "tp"), ("nemotron-other", "nemotron-tp", "fsdp2")):
        words = [word for word in settings(folder / name, name.split("-")[0], command)[1:] if "scales_every" not in word]
        jobs.append(["validate", *words, f"--ckpt_path={step_file(folder / source, STEPS)}", *on(strategy, 2)])
    goes_on = [f"--ckpt_path={step_file(folder / 'ngpt-fsdp2', 10)}", *on("tp", 2)]
    jobs.append(settings(folder / "ngpt-resumed", "ngpt", command, *goes_on))
    carry_out(jobs, 2, folder)
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(one, other):
    """Every number of every row, and the weights and moments at the end, are those of the other run but for rounding."""
    ours, theirs = rows(one), rows(other)
    assert len(ours) == len(theirs) >= STEPS + 1
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            if key not in ("time", "train/tokens_per_second") and not key.startswith("sphere/angle"):
                assert row[key] == pytest.approx(value, abs=1e-5), key
            if key.startswith("sphere/angle"):  # degrees
                assert row[key] == pytest.approx(value, rel=1e-3), key
            if key == "sphere/weight_error":
                assert row[key] < 2e-6
    ours, theirs = load(step_file(one, STEPS)), load(step_file(other, STEPS))
    assert ours.keys() == theirs.keys()
    assert ours["callbacks"].keys() == theirs["callbacks"].keys()
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=1e-5)
    states, expected = ours["optimizer_states"][0], theirs["optimizer_states"][0]
    assert states["param_groups"] == expected["param_groups"]
    torch.testing.assert_close(states["state"], expected["state"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("run", ["ngpt-ddp", "ngpt-fsdp2", "ngpt-tp", "nemotron-fsdp2", "nemotron-tp"])
def test_two_processes_come_to_what_one_comes_to(run, alone, two):
    assert_same(two / run, alone / run.split("-")[0])


def test_a_run_goes_on_in_another_layout_from_a_checkpoint_in_pieces(alone, two):
    ours, theirs = load(step_file(two / "ngpt-resumed", STEPS)), load(step_file(alone / "ngpt", STEPS))
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=1e-5)
    assert [row["step"] for row in rows(two / "ngpt-resumed") if "train/loss" in row] == list(range(11, STEPS + 1))


@pytest.mark.parametrize(("read", "wrote"), [("ngpt-other", "ngpt-fsdp2"), ("nemotron-other", "nemotron-tp")])
def test_weights_written_in_one_layout_are_the_same_bits_in_another(read, wrote, two):
    assert is_folder(step_file(two / wrote, STEPS))
    evaluated = torch.load(two / f"{read}-evaluated.pt")
    written = load(step_file(two / wrote, STEPS))["state_dict"]
    torch.testing.assert_close(evaluated, dict(written), rtol=0, atol=0)


def test_a_run_in_pieces_starts_with_the_bits_of_one_process(two, command, tmp_path):
    for model in MODELS:
        expected = initial(settings(tmp_path / model, model, command))
        for strategy in ("fsdp2", "tp"):
            torch.testing.assert_close(torch.load(two / f"{model}-{strategy}-initial.pt"), expected, rtol=0, atol=0)


def initial(arguments):
    """What `fit` makes in one process, before it trains."""
    from lightning.pytorch import seed_everything

    from ngpt_lab.training.cli import DryCLI

    seed_everything(0, verbose=False)
    return dict(DryCLI(arguments[1:], on="cpu").model.state_dict())


@pytest.mark.parametrize("name", ["ngpt-fsdp2", "nemotron-tp"])
def test_one_file_is_made_of_a_folder_of_pieces(name, two, tmp_path, capsys):
    main(["consolidate", str(two / name), f"--out={tmp_path / 'one.ckpt'}"])
    whole, pieces = load(tmp_path / "one.ckpt"), load(step_file(two / name, STEPS))
    assert whole.keys() == pieces.keys()
    for ours, theirs in zip(leaves(whole), leaves(pieces), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert list(tmp_path.iterdir()) == [tmp_path / "one.ckpt"]


def test_a_broken_folder_of_pieces_is_told_and_the_one_before_is_taken(two, tmp_path, capsys):
    shutil.copytree(two / "ngpt-fsdp2" / "checkpoints", tmp_path / "checkpoints", symlinks=True)
    piece = next(step_file(tmp_path, STEPS).glob("__1_*"))
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 1
    piece.write_bytes(content)
    found = newest(tmp_path)
    assert (found.step, found.broken) == (10, (step_file(tmp_path, STEPS),))
    assert f"its {piece.name} is missing or broken" in capsys.readouterr().err


def test_no_code_is_unpickled_from_a_folder_of_pieces(two, tmp_path, monkeypatch):
    path = tmp_path / "step-000020.ckpt"
    shutil.copytree(step_file(two / "ngpt-fsdp2", STEPS), path)
    (path / ".metadata").write_bytes(pickle.dumps((tmp_path / "made").touch))
    monkeypatch.setattr("ngpt_lab.training.parallel.folders.verify_folder", lambda path, outline: None)
    with pytest.raises(InputError, match=r"it holds builtins\.getattr"):
        load(path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--trainer.strategy=tp", "--trainer.devices=3"], "dims.n_heads is 4, which tensor parallelism cannot split over 3"),
        (["--trainer.strategy=fsdp2+tp", "--trainer.devices=3"], "tensor_parallel_size is 2, which does not group 3 devices"),
        (
            ["--trainer.strategy=ngpt_lab.training.parallel.Sharded", "--trainer.strategy.tensor_parallel_size=0"],
            "tensor_parallel_size is 0, which does not group",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_before_processes_are_started(more, told, command, tmp_path, refused):
    assert told in refused(command(tmp_path / "run", "ngpt", *more))


def test_pieces_are_not_written_where_there_are_none(command, tmp_path, refused):
    assert "checkpoint.sharded is true" in refused(command(tmp_path / "run", "ngpt", "--checkpoint.sharded=true"))


@pytest.mark.parallel
@pytest.mark.parametrize("model", MODELS)
def test_four_processes_come_to_what_one_comes_to(model, alone, command, tmp_path):
    """Also in groups of two, and when they go on in other groups."""
    jobs = [
        settings(tmp_path / "both", model, command, *on("fsdp2+tp", 4, sharded=True)),
        settings(tmp_path / "fsdp2", model, command, *on("fsdp2", 4)),
        settings(tmp_path / "tp", model, command, *on("tp", 4)),
        settings(tmp_path / "ddp", model, command, *on("ddp", 4)),
        settings(tmp_path / "resumed", model, command, f"--ckpt_path={step_file(tmp_path / 'both', 10)}", *on("fsdp2", 4)),
        settings(tmp_path / "back", model, command, f"--ckpt_path={step_file(tmp_path / 'tp', 10)}", *on("fsdp2+tp", 4)),
    ]
    carry_out(jobs, 4, tmp_path)
    for name in ("both", "fsdp2", "tp", "ddp"):
        assert_same(tmp_path / name, alone / model)
    expected = load(step_file(alone / model, STEPS))["state_dict"]
    for name in ("resumed", "back"):
        torch.testing.assert_close(load(step_file(tmp_path / name, STEPS))["state_dict"], expected, rtol=0, atol=1e-5)


@pytest.mark.parallel
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "tp"])
@pytest.mark.parametrize("first", [True, False], ids=["the-first", "another"])
def test_where_one_process_is_killed_the_others_end(strategy, first, command, tmp_path):
    words = command(
        tmp_path / "run", "ngpt", *on(strategy, 2), "--trainer.max_steps=100000", "--trainer.val_check_interval=null"
    )
    run = subprocess.Popen([sys.executable, "-m", "ngpt_lab", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), 240)
        (other,) = children(run.pid)
        os.kill(run.pid if first else other, signal.SIGKILL)
        assert run.wait(timeout=60) != 0
        until(lambda: not alive(other), 60)
    finally:
        run.kill()


def until(true, seconds):
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(pid):
    """The processes that one started as parts of its run."""
    found = [path for path in Path("/proc").glob("[0-9]*/stat") if int(path.read_text().rpartition(")")[2].split()[1]) == pid]
    return [int(path.parent.name) for path in found if b"ngpt_lab" in (path.parent / "cmdline").read_bytes()]


def alive(pid):
    """Whether a process runs: one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
