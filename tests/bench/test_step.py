"""The step benchmark: each arm's step is its run's own, the arms are interleaved, and the ratios are those of the seconds."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from ngpt_lab.bench.floor import Hardware
from ngpt_lab.bench.step import Arm, describe, is_compiled, load, measure
from ngpt_lab.bench.step_command import asked_arms, settings_of
from ngpt_lab.bench.timing import ratio, time_rounds
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.normalize_weights import NormalizeWeights

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture
def forwards() -> Iterator[list[int]]:
    """The rows of every batch that goes through a decoder."""
    seen: list[int] = []
    hook = register_module_forward_hook(
        lambda module, inputs, _: seen.append(len(inputs[0])) if isinstance(module, Decoder) else None
    )
    yield seen
    hook.remove()


@pytest.fixture
def projections(monkeypatch: pytest.MonkeyPatch) -> list[NormalizeWeights]:
    """Every projection of the weights."""
    seen: list[NormalizeWeights] = []
    monkeypatch.setattr(NormalizeWeights, "normalize", lambda self, module: seen.append(self))
    return seen


def test_arms_take_turns_and_warmup_does_not_count() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = time_rounds(steps, rounds=3, warmup=1, device=CPU)
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_pairs_rounds() -> None:
    drifting = ratio([1.1, 2.2, 4.4], [1.0, 2.0, 4.0])
    assert drifting["median"] == pytest.approx(1.1)
    assert drifting["half_width"] == pytest.approx(0, abs=1e-9)
    # Student's t with 2 degrees of freedom: 4.303 times the standard error.
    assert ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])["half_width"] == pytest.approx(4.303 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "ablations", "settings"),
    [
        ("nemotron", (), ["--trainer.accumulate_grad_batches=3", "--trainer.gradient_clip_val=0.1"]),
        ("nemotron", ("fixed_norm",), ["--trainer.gradient_clip_val=0"]),
        ("ngpt", (), ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=null"]),
        ("ngpt", (), ["--trainer.precision=bf16-true"]),
        ("nemotron", (), ["--trainer.precision=bf16-true"]),
    ],
)
def test_the_measured_step_is_the_runs_own(tmp_path: Path, args, model, ablations, settings) -> None:  # type: ignore[no-untyped-def]
    # The first step of a run without warmup has the peak learning rate, as the bench has throughout.
    words = args(model, "--model.init_args.schedule.init_args.warmup=0", *settings, ablations=ablations)
    arm = Arm(load(words), CPU, compiled=False)
    arm.step()
    folder = tmp_path / "run"
    quiet = [f"--trainer.default_root_dir={folder}", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1"]
    CLI(["fit", *words, "--trainer.max_steps=1", "--checkpoint.every_n_train_steps=1", *quiet])
    trained = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    measured = arm.module.state_dict()
    assert {name: value for name, value in measured.items() if not torch.equal(value, trained[name])} == {}


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
def test_bf16_true_measures_a_model_stored_in_bfloat16(args, model) -> None:  # type: ignore[no-untyped-def]
    arm = Arm(load(args(model, "--trainer.precision=bf16-true")), CPU, compiled=False)
    arm.step()
    assert describe(arm, [1.0])["precision"] == "bf16-true"
    assert {p.dtype for p in arm.module.parameters()} == {torch.bfloat16}


def test_a_step_accumulates_and_then_projects_once(args, forwards, projections) -> None:  # type: ignore[no-untyped-def]
    cost = measure({"a": args("ngpt", "--trainer.accumulate_grad_batches=3")}, "a", rounds=2, warmup=1)
    steps = 1 + 1 + 2 + 1  # the first, those that warm up, those that count, and one for its memory
    assert forwards == [8] * (3 * steps + 1)  # one forward pass alone for what it keeps
    assert len(projections) == 1 + steps  # the first at the start
    assert cost["arms"]["a"]["tokens_per_step"] == 3 * 8 * 64


def test_the_projection_comes_every_n_steps(args, projections) -> None:  # type: ignore[no-untyped-def]
    arm = Arm(load(args("ngpt", "--normalize_weights.every_n_steps=3")), CPU, compiled=False)
    projections.clear()
    done = []
    for _ in range(7):
        arm.step()
        done.append(len(projections))
    assert done == [0, 0, 1, 1, 1, 2, 2]


def test_normalised_baselines_are_measured(args) -> None:  # type: ignore[no-untyped-def]
    arms = {name: args("nemotron", ablations=(name,)) for name in ("fixed_norm", "unit_norm")}
    cost = measure(arms, "fixed_norm", rounds=2, warmup=1)
    assert all(min(arm["seconds"]) > 0 for arm in cost["arms"].values())


def test_an_arm_is_compiled_if_its_own_config_asks(monkeypatch: pytest.MonkeyPatch, args) -> None:  # type: ignore[no-untyped-def]
    compiled: list[str] = []
    monkeypatch.setattr(Decoder, "compile", lambda self, **_: compiled.append(type(self).__name__))
    monkeypatch.setattr("ngpt_lab.bench.arm.require_compiler", lambda device: None)
    arms = {"own": args("ngpt", "--model.init_args.compile=true"), "other": args("nemotron")}
    one, both = (measure(arms, "other", rounds=1, warmup=0, compiled=asked) for asked in (False, True))
    assert compiled == ["NGPT", "NGPT", "Nemotron"]
    assert [{name: arm["compiled"] for name, arm in cost["arms"].items()} for cost in (one, both)] == [
        {"own": True, "other": False},
        {"own": True, "other": True},
    ]
    assert (one["compiled"], both["compiled"]) == (False, True)
    assert [is_compiled(name, ["own"]) for name in arms] == [True, False]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("--trainer.precision=16-mixed", "trainer.precision is 16-mixed, which is .*: use 32-true, bf16-mixed or bf16-true"),
        ("--trainer.accelerator=gpu", "trainer.accelerator is gpu, but this machine has no CUDA device"),
        ("--trainer.accelerator=mps", "trainer.accelerator is mps, but .* cpu, gpu, cuda or auto"),
    ],
)
def test_what_is_not_measured_is_refused(monkeypatch: pytest.MonkeyPatch, args, setting: str, told: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=told):
        measure({"a": args("nemotron", setting)}, "a")


def test_arms_on_different_devices_are_refused(monkeypatch: pytest.MonkeyPatch, args) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arms = {"a": args("nemotron"), "b": args("nemotron", "--trainer.accelerator=auto")}
    with pytest.raises(InputError, match=r"different devices \(a on cpu, b on cuda\)"):
        measure(arms, "a")


def test_an_arm_is_told_with_its_parts_its_memory_and_its_floor(args) -> None:  # type: ignore[no-untyped-def]
    arms = {"ngpt": args("ngpt"), "nemotron": args("nemotron")}
    can = Hardware("one", {"32-true": 1e12}, 1e11)
    cost = measure(arms, "nemotron", rounds=2, warmup=0, hardware=lambda device: can, kernels=True)
    for arm in cost["arms"].values():
        assert sum(arm["parts"].values()) == pytest.approx(arm["median"], rel=0.2)
        assert arm["mfu"] == pytest.approx(arm["flops_per_token"] * arm["tokens_per_second"] / 1e12)
        assert arm["floor"]["share"] == pytest.approx(arm["floor"]["seconds"] / arm["median"])
        assert arm["first_loss"] == pytest.approx(math.log(256), rel=0.2)
        assert arm["peak_bytes"] > arm["saved_for_backward_bytes"] + 3 * 4 * arm["parameters"]
        assert sum(arm["kernels"].values()) == pytest.approx(1)
    ngpt, nemotron = cost["arms"].values()
    assert ngpt["parts"]["projection"] > 2 * nemotron["parts"]["projection"] > 0
    assert ngpt["saved_for_backward_bytes"] > nemotron["saved_for_backward_bytes"]


def test_the_command_measures_ours_and_others(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [f"--arm={m}={CONFIGS}/model/{m}.yaml,{CONFIGS}/size/debug.yaml" for m in ("ngpt", "nemotron")]
    file, plot = tmp_path / "cost.json", tmp_path / "roof.png"
    settings = ["--set=--data.source=TextFiles", f"--set=--data.source.files={corpus}", "--set=--trainer.precision=32"]
    own = ["--set", "ngpt:--trainer.precision=bf16-mixed", "--arm", "hf=transformers:eager"]
    written = ["--peak", "h100", "--plot", str(plot), "--json", str(file)]
    main(["bench", "step", *arms, *settings, *own, "--rounds", "3", "--warmup", "1", *written])
    cost = json.loads(file.read_text())
    assert list(cost["arms"]) == ["ngpt", "nemotron", "hf"]
    assert all(len(arm["seconds"]) == 3 and min(arm["seconds"]) > 0 for arm in cost["arms"].values())
    assert [arm["precision"] for arm in cost["arms"].values()] == ["bf16-mixed", "32-true", "32-true"]
    assert cost["arms"]["hf"]["first_loss"] == pytest.approx(cost["arms"]["nemotron"]["first_loss"], rel=1e-5)
    pairs = zip(cost["arms"]["ngpt"]["seconds"], cost["arms"]["nemotron"]["seconds"], strict=True)
    assert cost["ratios"]["ngpt"]["per_round"] == [a / b for a, b in pairs]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "transformers:eager" in capsys.readouterr().out


def test_an_arm_takes_its_own_files_or_the_baselines() -> None:
    a, b, c = (str(CONFIGS / f"model/{model}.yaml") for model in ("ngpt", "nemotron", "gpt"))
    asked = [f"x={a}", f"y={b},{c}", "hf=transformers:sdpa", f"small=nGPT-pytorch:manual,{a}"]
    arms, others = asked_arms(asked, "y")
    assert {name: [str(file) for file in files] for name, files in arms.items()} == {
        "x": [a],
        "y": [b, c],
        "hf": [b, c],
        "small": [a],
    }
    assert others == {"hf": "transformers:sdpa", "small": "nGPT-pytorch:manual"}
    settings = ["x:--own=1", "--all=2", "y:--other=3"]
    assert [settings_of(name, settings, arms) for name in arms] == [
        ["--all=2", "--own=1"],
        ["--all=2", "--other=3"],
        *[["--all=2"]] * 2,
    ]


ARM = f"--arm=a={CONFIGS}/model/ngpt.yaml"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rounds", "0"], "--rounds is 0: it must be at least 1"),
        (["--baseline", "gpt"], "--baseline gpt is not among the arms ngpt, nemotron"),
        (["--arm", "hf=transformers:sdpa"], "no arm has config files, which say the sizes"),
        ([ARM, ARM], "--arm a is given twice"),
        ([ARM, "--compile", "b"], "--compile b is not among the arms a"),
        ([ARM, "--set", "b:--x=1"], "--set b:--x=1: b is not among the arms a"),
        ([ARM, "--set", "x=1"], "--set x=1: give it as --key=value, or as NAME:--key=value"),
        ([ARM, "--peak", "abacus"], "the hardware is 'abacus': choose one of"),
        ([ARM, "--plot", "roof.doc"], "--plot roof.doc: end the name in .png or .svg"),
    ],
)
def test_bad_options_are_refused(words: list[str], told: str) -> None:
    from ngpt_lab.bench.step_command import main

    with pytest.raises(InputError, match=re.escape(told)):
        main(words)
