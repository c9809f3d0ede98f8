"""Decoders as torch's exported programs, which must hold torch's own operators alone."""

import pytest
import torch

from ngpt_lab.models.nemotron import Nemotron
from ngpt_lab.models.ngpt import NGPT
from ngpt_lab.nn import Dims, product


@pytest.mark.parametrize("model", [NGPT, Nemotron])
def test_an_exported_decoder_computes_the_same_with_torchs_operators(model, monkeypatch):
    monkeypatch.setattr(product, "MKL_IS_SLOW", True)
    monkeypatch.setattr(product, "WORTH_A_CALL", 1)
    decoder, ids = model(Dims(64, 32, 2, 4, 2, 8, 64)), torch.randint(64, (2, 16))
    program = torch.export.export(decoder, (ids,))
    torch.testing.assert_close(program.module()(ids), decoder(ids))
    assert not [str(node.target) for node in program.graph.nodes if "ngpt_lab" in str(node.target)]
