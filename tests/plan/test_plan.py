"""`ngpt-lab plan`: what is shared and what is not, the figures of a run, and what is refused."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from ngpt_lab.bench.floor import NAMED
from ngpt_lab.cli import main, run
from ngpt_lab.errors import InputError
from ngpt_lab.plan import plan as module
from ngpt_lab.plan.layout import Layout, layout
from ngpt_lab.plan.plan import Plan, plan
from ngpt_lab.plan.table import size, verdict

CONFIGS = Path(__file__).parents[2] / "configs"
H100 = NAMED["h100"]
IN_GROUPS = ("--trainer.devices=2", "--trainer.strategy=ngpt_lab.training.parallel.Sharded")


def arguments(model: str, size: str, *settings: str) -> list[str]:
    return [
        *(word for part in ("base", f"model/{model}", f"size/{size}") for word in ("-c", f"{CONFIGS}/{part}.yaml")),
        *settings,
    ]


@pytest.fixture(scope="module")
def planned() -> Iterator[Callable[..., Plan]]:
    """The plan of a debug model; what a compiled pass keeps is not looked for."""

    @cache
    def build(*settings: str, model: str = "ngpt") -> Plan:
        return plan(arguments(model, "debug", *settings), H100)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "kept_when_compiled", lambda cli, step: 0)
        yield build


@pytest.mark.parametrize(
    ("strategy", "devices", "nodes", "expected"),
    [
        ("auto", 1, 1, ("single", 1, 1, 1)),
        ("auto", "4", 1, ("ddp", 4, 1, 1)),
        ("ddp", [0, 1], 2, ("ddp", 4, 1, 1)),
        ("fsdp2", 4, 2, ("fsdp2", 8, 1, 8)),
        ("tp", 4, 1, ("tp", 1, 4, 1)),
        ("fsdp2+tp", 4, 2, ("fsdp2+tp", 4, 2, 4)),
    ],
)
def test_a_strategy_is_a_layout(strategy: str, devices: object, nodes: int, expected: tuple[object, ...]) -> None:
    found = layout({"trainer.strategy": strategy, "trainer.devices": devices, "trainer.num_nodes": nodes})
    assert (found.strategy, found.data, found.tensor, found.shards) == expected


def test_a_strategy_by_its_class_has_the_sizes_it_is_given() -> None:
    given = {"class_path": "ngpt_lab.training.parallel.strategy.Sharded", "init_args.tensor_parallel_size": 4}
    settings = {f"trainer.strategy.{key}": value for key, value in given.items()}
    assert layout({**settings, "trainer.devices": 8, "trainer.num_nodes": 1}) == Layout(2, 4, True, 1)


def test_fsdp2_shares_weights_gradients_and_state_and_ddp_does_not(planned: Callable[..., Plan]) -> None:
    alone, ddp, fsdp = planned(), planned("--trainer.devices=4"), planned("--trainer.devices=4", "--trainer.strategy=fsdp2")
    for name in ("weights", "gradients", "optimizer"):
        whole = getattr(alone.memory, name)
        assert getattr(ddp.memory, name) == whole
        assert getattr(fsdp.memory, name) == -(-whole // 4)
    assert (ddp.memory.buckets, ddp.memory.gathered) == (alone.memory.gradients, 0)
    assert (fsdp.memory.buckets, alone.memory.gathered, fsdp.memory.gathered > 0) == (0, 0, True)
    layers = 2
    block = (alone.parameters["attention"] + alone.parameters["mlp"] + alone.parameters["stream"]) // layers
    outside = alone.parameters["embedding"] + alone.parameters["head"]
    assert fsdp.memory.gathered == 2 * 4 * (outside + 2 * block + block)  # weights and gradients; a block in buffers
    assert alone.micro_batch == (8, 64)
    assert ddp.micro_batch == fsdp.micro_batch == (2, 64)
    assert sum(ddp.memory.activations.values()) < sum(alone.memory.activations.values()) / 2


def test_tensor_parallelism_shares_blocks_and_nothing_else(planned: Callable[..., Plan]) -> None:
    alone, tp = planned(), planned("--trainer.devices=2", "--trainer.strategy=tp")
    shared = 4 * (alone.parameters["attention"] + alone.parameters["mlp"])
    assert tp.memory.weights == alone.memory.weights - shared // 2
    assert tp.micro_batch == alone.micro_batch
    assert tp.memory.activations["stream"] == alone.memory.activations["stream"]
    assert tp.memory.activations["mlp"] < alone.memory.activations["mlp"]
    assert tp.floor.flops < alone.floor.flops


def test_a_plan_counts_the_runs_tokens_and_operations(planned: Callable[..., Plan]) -> None:
    told = planned("--trainer.max_steps=10", "--trainer.accumulate_grad_batches=3", model="nemotron")
    assert (told.tokens_per_step, told.tokens) == (3 * 8 * 64, 10 * 3 * 8 * 64)
    matrices = told.parameters["attention"] + told.parameters["mlp"] + told.parameters["head"]
    assert told.flops_per_token == 6 * matrices + 6 * 2 * 64 * 4 * 16
    assert told.flops == told.flops_per_token * told.tokens
    assert told.step_seconds == (told.floor.seconds / 0.85, told.floor.seconds / 0.4)


def test_what_is_sent_follows_from_the_layout(planned: Callable[..., Plan]) -> None:
    alone, ddp = planned(), planned("--trainer.devices=4")
    fsdp = planned("--trainer.devices=4", "--trainer.strategy=fsdp2")
    tp = planned("--trainer.devices=2", "--trainer.strategy=tp")
    assert alone.sent == 0
    assert ddp.sent == 2 * alone.memory.gradients * 3 // 4
    assert fsdp.sent == 3 * alone.memory.weights * 3 // 4
    assert tp.sent == 2 * 2 * 2 * (8 * 64 * 64) * (4 + 4) // 2


def test_the_verdict_says_whether_it_fits(planned: Callable[..., Plan]) -> None:
    assert verdict(planned()).startswith("fits: needs 0% of 74.51 GiB")
    total = planned().memory.total
    told = [verdict(replace(planned(), hardware=replace(H100, memory=total * share))) for share in (0.9, 1.05)]
    assert told[0].startswith("does not fit: needs 111%")
    assert told[1].startswith("fits barely, or not: needs 95%")


def test_sizes_are_told_in_units_of_1024() -> None:
    assert [size(n) for n in (12, 2048, 3 * 2**20, 5 * 2**30)] == ["12 B", "2 KiB", "3 MiB", "5.00 GiB"]


def test_the_command_writes_and_shows_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "kept_when_compiled", lambda cli, step: 7)
    file = tmp_path / "plan.json"
    words = arguments("ngpt", "debug", "--trainer.strategy=fsdp2+tp", "--trainer.devices=4")
    main(["plan", *words, "--hardware=h200", "--efficiency", "0.5", "0.5", "--json", str(file)])
    told = json.loads(file.read_text())
    assert told["layout"] == {"strategy": "fsdp2+tp", "data": 2, "tensor": 2, "sharded": True, "nodes": 1}
    assert told["seconds"][0] == told["seconds"][1] == pytest.approx(told["steps"] * told["floor"]["seconds"] / 0.5)
    assert told["activations"]["compiled"] == 7
    assert "fsdp2+tp, 2 x 2 process(es)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_plans_fifteen_billion_parameters(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = arguments("ngpt", "nemotron-4-15b", "--trainer.strategy=fsdp2", "--trainer.devices=8", "--data.batch_size=8")
    begun = time.process_time()
    main(["plan", *words, "--trainer.precision=bf16-mixed", "--hardware=h200", "--json", str(file)])
    assert time.process_time() - begun < 60
    told = json.loads(file.read_text())
    assert told["parameters"]["total"] == pytest.approx(15.6e9, rel=0.01)
    assert 0 < told["activations"]["compiled"] < told["activations"]["eager, all kept"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hardware=abacus"], "--hardware is 'abacus': choose measured or one of a100"),
        (["--efficiency", "0.9", "0.5"], "--efficiency is 0.9 0.5"),
        (["--trainer.devices=3"], "--data.batch_size is 8, which 3 processes cannot share evenly"),
        (["--trainer.devices=auto"], "trainer.devices is auto: a plan needs their number"),
        (["--trainer.strategy=deepspeed"], "trainer.strategy is deepspeed, which is not planned"),
        (["--trainer.devices=4", "--trainer.strategy=tp"], "dims.n_kv_heads is 2, which tensor parallelism cannot split"),
        (["--trainer.devices=3", "--trainer.strategy=fsdp2+tp"], "does not group 3 devices"),
        (
            [*IN_GROUPS, "--trainer.strategy.tensor_parallel_size=0"],
            "tensor_parallel_size is 0, which does not group 2 devices",
        ),
        ([*IN_GROUPS, "--trainer.strategy.tensor_parallel_size=-1"], "tensor_parallel_size is -1, which does not group"),
        (["--trainer.num_nodes=0"], "trainer.num_nodes is 0: it must be at least 1"),
        (["--trainer.max_steps=-1"], "trainer.max_steps is -1: a plan needs the length of the run"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches is 0: a step needs at least 1"),
        (["--trainer.precision=16-mixed"], "trainer.precision is 16-mixed, which is neither measured nor planned"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(words: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        run(["plan", *arguments("ngpt", "debug"), "--hardware=h100", *words])
