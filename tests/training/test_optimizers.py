"""Which parameters decay, and which learning rate each has."""

from ngpt_lab.models import NGPT, Dims, Nemotron
from ngpt_lab.nn.linear import stream_matrices
from ngpt_lab.nn.scale import Scale
from ngpt_lab.training import AdamW

DIMS = Dims(64, 16, 2, 2, 2, 8, 32)


def groups(model: NGPT | Nemotron, optimizer: AdamW) -> dict[str, set[int]]:
    return {group["name"]: {id(p) for p in group["params"]} for group in optimizer.build(model).param_groups}


def test_every_parameter_is_in_one_group() -> None:
    for model in (NGPT(DIMS), Nemotron(DIMS)):
        members = [parameter for group in AdamW().build(model).param_groups for parameter in group["params"]]
        assert len(members) == len({id(p) for p in members}) == len(list(model.parameters()))


def test_matrices_alone_decay() -> None:
    model = Nemotron(DIMS)
    decayed = {id(matrix.weight) for _, matrix in stream_matrices(model)}
    assert groups(model, AdamW(weight_decay=0.1))["decayed"] == decayed
    embeddings = {id(model.embedding.weight), id(model.lm_head.matrix.weight)}
    assert groups(model, AdamW(weight_decay=0.1, decay_embeddings=False))["decayed"] == decayed - embeddings


def test_scales_can_have_a_learning_rate_of_their_own() -> None:
    model = NGPT(DIMS)
    scales = {id(part.stored) for part in model.modules() if isinstance(part, Scale)}
    optimizer = AdamW(lr=1e-3, scale_lr=1e-2)
    assert groups(model, optimizer)["scales"] == scales
    assert {group["name"]: group["lr"] for group in optimizer.build(model).param_groups} == {"decayed": 1e-3, "scales": 1e-2}
