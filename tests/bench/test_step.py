"""The step benchmark: each arm's step is its run's own, the arms are interleaved, and the ratios are those of the seconds."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from ngpt_lab.bench.step import Arm, load, measure, ratio, time_rounds
from ngpt_lab.cli import main
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.training.cli import CLI
from ngpt_lab.training.normalize_weights import NormalizeWeights

CONFIGS = Path(__file__).parents[2] / "configs"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("corpus") / "words.txt"
    file.write_text("\n".join(" ".join(draw.choices(["unit", "sphere", "norm", "query"], k=9)) for _ in range(2000)))
    return file


@pytest.fixture
def args(corpus: Path):  # type: ignore[no-untyped-def]
    """The arguments of `fit` for a model of the debug size, with ablations, and settings."""

    def build(model: str, *settings: str, ablations: tuple[str, ...] = ()) -> list[str]:
        parts = ["base", f"model/{model}", "size/debug", *(f"ablation/{name}" for name in ablations)]
        words = [word for part in parts for word in ("-c", f"{CONFIGS}/{part}.yaml")]
        return [*words, "--data.source=TextFiles", f"--data.source.files={corpus}", "--trainer.accelerator=cpu", *settings]

    return build


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
    assert arm.describe([1.0])["precision"] == "bf16-true"
    assert {p.dtype for p in arm.module.parameters()} == {torch.bfloat16}


def test_a_step_accumulates_and_then_projects_once(args, forwards, projections) -> None:  # type: ignore[no-untyped-def]
    cost = measure({"a": args("ngpt", "--trainer.accumulate_grad_batches=3")}, "a", rounds=2, warmup=1)
    assert forwards == [8] * 3 * 3
    assert len(projections) == 1 + 3  # the first at the start
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
    monkeypatch.setattr("ngpt_lab.bench.step.require_compiler", lambda device: None)
    arms = {"own": args("ngpt", "--model.init_args.compile=true"), "other": args("nemotron")}
    one, both = (measure(arms, "other", rounds=1, warmup=0, compiled=asked) for asked in (False, True))
    assert compiled == ["NGPT", "NGPT", "Nemotron"]
    assert [{name: arm["compiled"] for name, arm in cost["arms"].items()} for cost in (one, both)] == [
        {"own": True, "other": False},
        {"own": True, "other": True},
    ]
    assert (one["compiled"], both["compiled"]) == (False, True)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("--trainer.precision=16-mixed", "trainer.precision is 16-mixed, but .* only 32-true, bf16-mixed and bf16-true"),
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


def test_the_command_measures_both_models(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [f"--arm={m}={CONFIGS}/model/{m}.yaml,{CONFIGS}/size/debug.yaml" for m in ("ngpt", "nemotron")]
    file = tmp_path / "cost.json"
    settings = ["--set=--data.source=TextFiles", f"--set=--data.source.files={corpus}", "--set=--trainer.precision=32"]
    main(["bench", "step", *arms, *settings, "--rounds", "3", "--warmup", "1", "--json", str(file)])
    cost = json.loads(file.read_text())
    assert set(cost["arms"]) == {"ngpt", "nemotron"}
    assert all(len(arm["seconds"]) == 3 and min(arm["seconds"]) > 0 for arm in cost["arms"].values())
    assert {arm["precision"] for arm in cost["arms"].values()} == {"32-true"}
    pairs = zip(cost["arms"]["ngpt"]["seconds"], cost["arms"]["nemotron"]["seconds"], strict=True)
    assert cost["ratios"]["ngpt"]["per_round"] == [a / b for a, b in pairs]
    assert "ngpt" in capsys.readouterr().out
