"""Golden files of the two models that are generated from."""

import pytest
from neighbours import of

train = of("analysis").train
dims = of("models").dims
architecture = of("models").architecture
PARITY = of("parity")
FILES = [path for path in PARITY.FILES if path.name.startswith(("r1_", "r3_nemotron_lm"))]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest):
    return PARITY.Golden.read(request.param)
