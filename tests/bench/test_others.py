"""Other people's models as arms: the same function of the same weights, stepped alike."""

import sys

import pytest
import torch
from torch import nn

from ngpt_lab.bench import others
from ngpt_lab.bench.arm import Arm, load
from ngpt_lab.bench.others import OtherModel, other_model
from ngpt_lab.bench.step import measure
from ngpt_lab.errors import InputError
from ngpt_lab.interop import import_weights
from ngpt_lab.models import NGPT, Dims
from ngpt_lab.models.flops import flops_per_token

CPU = torch.device("cpu")
DIMS = Dims(vocab_size=61, d_model=24, n_layers=2, n_heads=3, n_kv_heads=3, d_head=8, d_ff=48)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["nemotron", "ngpt"])
def test_transformers_takes_the_very_steps_that_ours_takes(args, model: str, attention: str) -> None:  # type: ignore[no-untyped-def]
    words = args(model, "--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.1")
    ours, theirs = Arm(load(words), CPU, False), Arm(load(words), CPU, False, f"transformers:{attention}")
    losses = [[float(arm.step()) for _ in range(4)] for arm in (ours, theirs)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)
    assert losses[0][3] < losses[0][0]
    assert flops_per_token(ours.decoder, 64) == flops_per_token(theirs.decoder, 64)


@pytest.mark.parametrize("normalization", ["manual", "parametrized"])
def test_the_small_library_computes_what_its_count_is_of(normalization: str) -> None:
    torch.manual_seed(0)
    decoder = NGPT(DIMS)
    other = other_model(f"nGPT-pytorch:{normalization}", decoder)
    tokens, targets = torch.randint(DIMS.vocab_size, (2, 3, 9))
    targets[:, :-1] = tokens[:, 1:]
    like = import_weights(
        "lucidrains-ngpt",
        other.model.state_dict(),
        {"num_tokens": 61, "dim": 24, "depth": 2, "dim_head": 8, "heads": 3, "ff_expand_factor": 1.5 * 32.5 / 24}
        | {"manual_norm_weights": normalization == "manual", "add_value_residual": False},
    )
    torch.testing.assert_close(other(tokens, targets), like(tokens, targets))
    assert [p.shape for p in other.like.parameters()] == [p.shape for p in like.parameters()]
    assert all(p.is_meta for p in other.like.parameters())
    sizes = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (decoder, other)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_the_small_librarys_weights_are_normalised_after_each_step(args) -> None:  # type: ignore[no-untyped-def]
    heads = "--model.init_args.backbone.init_args.dims.n_kv_heads=4"
    arm = Arm(load(args("ngpt", heads)), CPU, False, "nGPT-pytorch:manual")
    first = float(arm.step())
    for _ in range(3):
        last = float(arm.step())
    assert last < first
    lengths = arm.module.backbone.model.token_embed.weight.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert arm.marks[-1].seconds()["projection"] > 0


class Breaks(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("expected Float but found Half\nand a trace")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(decoder: nn.Module, variant: str) -> OtherModel:
        model = nn.Sequential(nn.Linear(2, 2), Breaks())
        return OtherModel(model, decoder, lambda model, tokens, targets: model(torch.zeros(2)))  # type: ignore[arg-type]

    monkeypatch.setitem(others.OTHERS, "broken:always", (make, "nothing"))


@pytest.mark.usefixtures("broken")
def test_what_fails_at_its_first_step_is_left_out_and_told(args) -> None:  # type: ignore[no-untyped-def]
    arms = {"ours": args("nemotron"), "theirs": args("nemotron")}
    cost = measure(arms, "ours", rounds=1, warmup=0, implementations={"theirs": "broken:always"})
    assert cost["left_out"] == {"theirs": "broken:always fails with 32-true: expected Float but found Half"}
    assert (list(cost["arms"]), cost["ratios"]) == (["ours"], {})
    with pytest.raises(InputError, match=r"the baseline theirs cannot be measured .*found Half.: choose another"):
        measure(arms, "theirs", rounds=1, warmup=0, implementations={"theirs": "broken:always"})


def test_what_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="the implementation is 'litgpt:x': choose one of transformers:eager"):
        other_model("litgpt:x", NGPT(DIMS))
    grouped = NGPT(Dims(61, 24, 1, 2, 1, 8, 48))
    with pytest.raises(InputError, match=r"no grouped keys: set dims\.n_kv_heads to dims\.n_heads, 2"):
        other_model("nGPT-pytorch:manual", grouped)
    other, tokens = other_model("transformers:sdpa", grouped), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(InputError, match="do not tell documents apart"):
        other(tokens, tokens, documents=tokens)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers:sdpa is not installed .*: pip install 'ngpt-lab\[hf\]'"):
        other_model("transformers:sdpa", grouped)


def test_others_are_stepped_with_adamw_alone(args) -> None:  # type: ignore[no-untyped-def]
    cli = load(args("nemotron"))
    cli.model.optimizer_factory = object()  # type: ignore[assignment]
    with pytest.raises(InputError, match="other implementations are stepped with AdamW, not object"):
        Arm(cli, CPU, False, "transformers:sdpa")
