"""What every part owes, proved in every slot of every model: parts are found by their class, so a new one is held to it too."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

import ngpt_lab.interop
import ngpt_lab.models
import ngpt_lab.nn
from ngpt_lab.models import GPT, NGPT, Nemotron
from ngpt_lab.nn import slots
from ngpt_lab.nn.linear import StreamMatrix, as_stored, as_unit

SLOTS = {
    "attention_residual": slots.Residual,
    "mlp_residual": slots.Residual,
    "qk_norm": slots.QKNorm,
    "value": slots.Value,
    "mlp": slots.MLP,
    "rotary": slots.Rotary,
    "final": slots.Final,
    "lm_head": slots.LMHead,
}
MODELS = (NGPT, Nemotron, GPT)

for package in (ngpt_lab.nn, ngpt_lab.models, ngpt_lab.interop):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def below(kind):
    return [part for child in kind.__subclasses__() for part in (child, *below(child))]


PARTS = [part for part in below(slots.Part) if part.__module__.startswith("ngpt_lab.") and not inspect.isabstract(part)]
FILLED = [(model, slot, part) for slot, kind in SLOTS.items() for part in PARTS if issubclass(part, kind) for model in MODELS]


def named(filled):
    return "-".join((filled[0].__name__, filled[1], filled[2].__name__))


@pytest.fixture(params=FILLED, ids=named)
def build(request, dims):
    """Builds a model with one part in one slot."""
    model, slot, part = request.param
    return lambda: model(dims, **{slot: part})


# Compiling takes seconds: each part in one slot of one model, the models in turn.
@pytest.fixture(params=[FILLED[at + at // 3 % 3] for at in range(0, len(FILLED), 3)], ids=named)
def part_of_one_model(request, dims):
    """Builds one of the models with a part in a slot."""
    model, slot, part = request.param
    return lambda: model(dims, **{slot: part})


def test_parts_are_found_and_final():
    assert {"SphereResidual", "ScaledQK", "ValueResidual", "OneMatrixSwiGLU", "StoredRotary"} <= {p.__name__ for p in PARTS}
    assert {kind for kind in SLOTS.values() if not any(issubclass(part, kind) for part in PARTS)} == set()
    assert [part for part in PARTS if part.__base__ not in SLOTS.values()] == []
    assert set(slots.Part.__subclasses__()) == set(SLOTS.values())


def test_every_argument_of_a_decoder_that_is_a_part_is_a_slot():
    defaults = {name: p.default for name, p in inspect.signature(NGPT).parameters.items() if p.default is not p.empty}
    assert {name for name, default in defaults.items() if callable(default)} == {*SLOTS, "weights"}


def test_a_model_gives_logits_a_loss_and_a_gradient_to_all_it_learns(build, dims, batch):
    tokens, targets = batch
    model = build()
    assert model(tokens).shape == (*tokens.shape, dims.vocab_size)
    loss = model(tokens, targets)
    assert loss.isfinite()
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_every_matrix_declares_which_side_faces_the_stream(build, dims):
    model = build()
    declared = {id(m.weight): m for m in model.modules() if isinstance(m, StreamMatrix)}
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    assert matrices
    assert [name for name, p in matrices.items() if id(p) not in declared] == []
    assert {matrices[name].shape[declared[id(p)].norm_dim] for name, p in matrices.items()} == {dims.d_model}


def test_a_model_without_memory_gets_it_from_reset_parameters(build, batch):
    with torch.device("meta"):
        model = build()
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    for p in model.parameters():
        nn.init.constant_(p, float("nan"))
    torch.manual_seed(0)
    model.reset_parameters()
    assert model(*batch).isfinite()
    torch.manual_seed(0)
    twin = build()
    assert all(torch.equal(p, twin.get_parameter(name)) for name, p in model.named_parameters())


def test_a_part_stays_in_the_graph(part_of_one_model, batch):
    compiles_to_the_same(part_of_one_model(), batch, "eager")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("model", "weights"), [(NGPT, as_stored), (NGPT, as_unit), (Nemotron, as_stored), (GPT, as_stored)])
def test_a_compiled_model_has_the_loss_and_gradients_of_the_eager_one(model, weights, dims, batch, backend):
    compiles_to_the_same(model(dims, weights=weights), batch, backend)


def compiles_to_the_same(model, batch, backend):
    loss, learned = model(*batch), [p for p in model.parameters() if p.requires_grad]
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)(*batch)
    torch.testing.assert_close(compiled, loss)
    expected = torch.autograd.grad(loss, learned)
    torch.testing.assert_close(torch.autograd.grad(compiled, learned), expected, atol=1e-5, rtol=1e-3)


def test_under_autocast_the_stream_is_float32_and_the_loss_nearly_the_same(build, batch):
    tokens, targets = batch
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        stream, loss = model.stream(tokens), model(tokens, targets)
    assert {x.dtype for x in stream} == {torch.float32}
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model(tokens, targets).item(), rel=0.02)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
