"""Small sizes, of which no two are alike, and a batch for them."""

import pytest
import torch
from torch import Tensor

from ngpt_lab.models import GPT, NGPT, Dims, Nemotron


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def dims() -> Dims:
    return Dims(vocab_size=53, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)


@pytest.fixture(scope="session")
def batch(dims: Dims) -> tuple[Tensor, Tensor]:
    ids = torch.randint(dims.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


@pytest.fixture(params=[NGPT, Nemotron, GPT])
def architecture(request: pytest.FixtureRequest):
    return request.param
