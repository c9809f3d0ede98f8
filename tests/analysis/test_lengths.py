"""What a decoder's loss becomes with more context than its training had."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngpt_lab.analysis import lengths as module
from ngpt_lab.analysis.lengths import by_length, change_by_length, loss_by_length, reference_length, window_losses
from ngpt_lab.data.corpora import Stream
from ngpt_lab.errors import InputError
from ngpt_lab.models import GPT, NGPT, Decoder, Dims, Nemotron

DIMS = Dims(vocab_size=53, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, d_ff=40)


class Text(Stream):
    """One document in memory."""

    bytes, documents = None, np.zeros(1, np.int64)

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens.numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.tokens)

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        return self.tokens[starts[:, None] + np.arange(length)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[NGPT, Nemotron, GPT])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return request.param(DIMS)


def test_a_decoder_that_looks_at_one_token_has_the_same_loss_at_every_length():
    decoder = Nemotron(DIMS)
    for block in decoder.blocks:
        block.attention.out.weight.data.zero_()
    text = torch.randint(53, (700,), dtype=torch.uint8)
    frame = loss_by_length(decoder, Text(text), [8, 16, 64, 128], windows=3)
    assert frame["length"].to_list() == [8, 16, 64, 128]
    assert frame["loss"].to_numpy() == pytest.approx(frame["loss"][0], abs=1e-6)
    assert frame["perplexity"].to_numpy() == pytest.approx(np.exp(frame["loss"].to_numpy()))


def test_the_loss_at_a_length_is_that_of_the_last_tokens_after_so_many(decoder: Decoder):
    text = torch.randint(53, (257,), dtype=torch.uint8)
    frame = loss_by_length(decoder, Text(text), [8, 64], windows=4).set_index("length")["loss"]
    for length in (8, 64):
        losses = []
        for end in (64, 128, 192, 256):
            context, following = text[end - length : end].long(), text[end - length + 1 : end + 1].long()
            logits = decoder(context[None])[0, -4:].detach().double()
            losses.append(torch.nn.functional.cross_entropy(logits, following[-4:]))
        assert frame[length] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "lengths", "windows", "told"),
    [
        (torch.zeros(64, dtype=torch.uint8), [8, 64], 2, "has 64 tokens and length 64 needs one more"),
        (torch.full((99,), 53), [8], 2, "token id 53 and the decoder 53 ids"),
        (torch.tensor([53] + [0] * 8), [8], 1, "token id 53 and the decoder 53 ids"),
        (torch.zeros(99, dtype=torch.uint8), [8, 16, 8], 2, r"lengths are \[8, 16, 8\]: give each of them once"),
        (torch.zeros(99, dtype=torch.uint8), [], 2, "at least 1"),
        (torch.zeros(99, dtype=torch.uint8), [8], 0, "at least 1"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(text: Tensor, lengths: list[int], windows: int, told: str):
    with pytest.raises(InputError, match=told):
        loss_by_length(Nemotron(DIMS), Text(text), lengths, windows)


def test_logits_made_few_at_a_time_give_the_same_losses(decoder: Decoder, monkeypatch: pytest.MonkeyPatch):
    text = Text(torch.randint(53, (300,), dtype=torch.uint8))
    at_once = window_losses(decoder, text, [16, 64], windows=4)
    monkeypatch.setattr(module, "LOGITS", 53 * 3)
    pd.testing.assert_frame_equal(window_losses(decoder, text, [16, 64], windows=4), at_once, rtol=1e-6)


def made(losses: dict[int, list[float]]) -> pd.DataFrame:
    rows = [(length, window, loss) for length, own in losses.items() for window, loss in enumerate(own)]
    return pd.DataFrame(rows, columns=["length", "window", "loss"])


def test_losses_over_windows_have_their_mean_its_t_interval_and_their_bits_per_byte():
    frame = by_length(made({8: [1.0, 2.0, 3.0], 16: [2.0, 2.0, 2.0]}), bytes_per_token=2.0)
    half = 4.302652729911275 / math.sqrt(3)  # t at 97.5% with 2 degrees of freedom
    assert frame["windows"].to_list() == [3, 3]
    assert frame[["loss", "low", "high"]].to_numpy() == pytest.approx(np.array([[2, 2 - half, 2 + half], [2, 2, 2]]))
    assert frame["bits_per_byte"].to_list() == pytest.approx([1 / math.log(2)] * 2)
    assert by_length(made({8: [1.0]}))[["low", "high", "bits_per_byte"]].isna().all(axis=None)


def test_a_change_that_every_window_shares_is_seen_however_far_the_windows_differ():
    change = change_by_length(made({8: [1.0, 5.0, 9.0], 16: [1.5, 5.4, 9.6]}), reference=8).set_index("length")
    assert change.loc[8].to_list() == [0, 0, 0]
    assert change.loc[16, "change"] == pytest.approx(0.5)
    assert change.loc[16, "low"] == pytest.approx(0.5 - 4.302652729911275 * 0.1 / math.sqrt(3))


def test_lengths_are_held_against_the_longest_that_training_had():
    assert reference_length([64, 256, 128, 512], trained=256) == 256
    assert reference_length([64, 512], trained=300) == 64
    assert reference_length([512, 256], trained=100) == 256
    assert reference_length([512, 256], trained=None) == 256
