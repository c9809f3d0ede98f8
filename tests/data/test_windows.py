from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_stream import MadeStream

import ngpt_lab.data.windows
from ngpt_lab.data.order import WindowOrder
from ngpt_lab.data.windows import AcrossDocuments, MaskedDocuments, WithinDocuments

KINDS = [AcrossDocuments, MaskedDocuments, WithinDocuments]
documents = st.lists(st.integers(1, 30), min_size=1, max_size=40)
seq_lens = st.integers(1, 12)


def everything(windows):
    """All windows as one batch."""
    return windows.batch(windows.starts(np.arange(windows.available)))


@given(documents, seq_lens, st.integers(0, 99), st.integers(0, 5))
def test_an_epoch_lays_windows_end_to_end_from_its_offset_inside_the_stream(lengths, seq_len, seed, epoch):
    windows = AcrossDocuments(MadeStream(lengths), seq_len)
    assert bool(windows.per_epoch) == bool(windows.available) == (sum(lengths) > seq_len)
    if windows.available:
        order = WindowOrder(windows.per_epoch, windows.offsets, seed, "print")
        starts = np.sort(windows.starts(*order.choose(epoch * windows.per_epoch, windows.per_epoch)))
        assert starts[0] in range(seq_len)
        assert np.array_equal(starts, starts[0] + seq_len * np.arange(windows.per_epoch))
        assert starts[-1] + seq_len < sum(lengths)
        assert windows.per_epoch >= windows.available - 1


@pytest.mark.parametrize(("tokens", "offsets"), [(8, 0), (9, 1), (15, 7), (16, 8), (17, 8)])
def test_every_offset_that_fits_is_used(tokens, offsets):
    windows = AcrossDocuments(MadeStream([tokens]), 8)
    assert (windows.available and windows.offsets) == offsets


@given(documents.filter(lambda lengths: sum(lengths) > 12), seq_lens)
def test_targets_are_the_tokens_after(lengths, seq_len):
    tokens, targets, documents = everything(AcrossDocuments(MadeStream(lengths), seq_len))
    assert torch.equal(targets, tokens + 1)
    assert documents is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_holds_dense_tensors_of_int64_that_share_no_memory(kind):
    windows = kind(MadeStream([20, 20, 20]), 7)
    for count in (1, 3):
        parts = [part for part in windows.batch(windows.held_out(count)) if part is not None]
        assert {(part.shape, part.dtype, part.is_contiguous()) for part in parts} == {((count, 7), torch.int64, True)}
        for value, part in enumerate(parts):
            part.fill_(value)
        assert [part.unique().tolist() for part in parts] == [[value] for value in range(len(parts))]


@given(documents.filter(lambda lengths: sum(lengths) > 12), seq_lens)
def test_masked_documents_are_the_same_windows_with_nothing_to_predict_across_documents(lengths, seq_len):
    stream = MadeStream(lengths)
    across, masked = everything(AcrossDocuments(stream, seq_len)), everything(MaskedDocuments(stream, seq_len))
    of = torch.repeat_interleave(torch.tensor(lengths))
    assert torch.equal(masked.tokens, across.tokens)
    known = of[across.targets] == of[across.tokens]
    assert torch.equal(masked.targets, across.targets.where(known, -100))
    assert torch.equal(masked.documents, of[across.tokens] - of[across.tokens[:, :1]])


@given(documents, seq_lens, st.integers(1, 5))
def test_windows_within_documents_have_every_token_but_first_ones_as_a_target_once(lengths, seq_len, block):
    with patch.object(ngpt_lab.data.windows, "DOCUMENTS_A_BLOCK", block):
        windows = WithinDocuments(MadeStream(lengths), seq_len)
        assert windows.available == sum(-(-(length - 1) // seq_len) for length in lengths)
        tokens, targets, documents = everything(windows)
    assert documents is None
    assert tokens.shape == targets.shape == (windows.available, seq_len)
    firsts = np.cumsum([0, *lengths])[:-1]
    scored = targets >= 0
    assert sorted(targets[scored].tolist()) == sorted(set(range(sum(lengths))) - set(firsts.tolist()))
    assert torch.equal(targets[scored], tokens[scored] + 1)
    assert bool(scored.any(dim=1).all())


@given(documents, seq_lens)
def test_a_window_within_a_document_holds_none_of_another_and_is_filled_up_on_the_right(lengths, seq_len):
    windows = WithinDocuments(MadeStream(lengths), seq_len)
    starts = windows.starts(np.arange(windows.available))
    tokens, targets, _ = windows.batch(starts)
    ends = np.cumsum(lengths)
    for start, row, scored in zip(starts, tokens.tolist(), (targets >= 0).tolist(), strict=True):
        end = ends[np.searchsorted(ends, start, side="right")]
        own = list(range(start, min(start + seq_len, end)))
        assert row == own + [0] * (seq_len - len(own))
        assert scored == sorted(scored, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 2**32 - 1))
def test_windows_in_any_company_are_the_same(kind, seed):
    draw = np.random.default_rng(seed)
    windows = kind(MadeStream(draw.integers(2, 30, 20)), 7)
    numbers = draw.integers(0, windows.available, 6)
    together = windows.batch(windows.starts(numbers))
    for row, number in enumerate(numbers):
        alone = windows.batch(windows.starts(np.array([number])))
        for part, whole in zip(alone, together, strict=True):
            assert part is whole is None or torch.equal(part[0], whole[row])


@pytest.mark.parametrize("kind", KINDS)
@given(documents, seq_lens, st.integers(1, 40))
def test_held_out_windows_do_not_overlap(kind, lengths, seq_len, at_most):
    windows = kind(MadeStream(lengths), seq_len)
    starts = windows.held_out(at_most)
    assert len(starts) == min(at_most, windows.available)
    targets = windows.batch(starts).targets
    scored = targets[targets >= 0].tolist()
    assert len(scored) == len(set(scored))


def test_a_stream_too_short_for_a_window_has_none():
    for kind, lengths in ((AcrossDocuments, [5]), (MaskedDocuments, [2, 3]), (WithinDocuments, [1, 1, 1])):
        windows = kind(MadeStream(lengths), 5)
        assert (windows.available, windows.per_epoch, len(windows.held_out(9))) == (0, 0, 0)


class Watched:
    """Where documents begin, read a slice at a time."""

    def __init__(self, begins):
        self.begins, self.longest = begins, 0

    def __len__(self):
        return len(self.begins)

    def __getitem__(self, some):
        self.longest = max(self.longest, len(self.begins[some]))
        return self.begins[some]


def test_no_more_than_a_block_of_documents_is_looked_at_or_kept():
    stream = MadeStream(np.full(50_000, 9))
    stream.begins = watched = Watched(stream.begins)
    windows = WithinDocuments(stream, 4)
    assert windows.available == 100_000
    assert windows.starts(np.array([99_999, 0, 50_001])).tolist() == [449_995, 0, 225_004]
    assert watched.longest == ngpt_lab.data.windows.DOCUMENTS_A_BLOCK + 1
    assert sum(np.size(kept) for kept in vars(windows).values() if isinstance(kept, np.ndarray)) == 50
