import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.data.loader import HeldOutLoader, Rank, WindowLoader
from ngpt_lab.data.order import WindowOrder, cut, evenly_spaced_starts
from ngpt_lab.errors import InputError

seeds = st.integers(0, 2**40)
sizes = st.tuples(st.integers(1, 9), st.integers(0, 300)).map(lambda s: (s[0], 2 * s[0] + s[1]))  # seq_len, length


def loader(length, seq_len, batch_size, seed=0, rank=Rank()):  # noqa: B008
    return WindowLoader(torch.arange(length), WindowOrder(length, seq_len, seed, "print"), batch_size, rank)


@given(sizes, seeds, st.integers(0, 5))
def test_an_epoch_visits_every_window_once_end_to_end_inside_the_stream(size, seed, epoch):
    seq_len, length = size
    order = WindowOrder(length, seq_len, seed, "print")
    starts = order.starts(epoch * order.windows, order.windows).sort().values
    assert starts[0] in range(seq_len)
    assert torch.equal(starts, starts[0] + seq_len * torch.arange(order.windows))
    assert starts[-1] + seq_len < length


@given(sizes, st.integers(1, 8), seeds, st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_batch_k_is_the_same_whatever_was_read_before(size, batch_size, seed, numbers):
    seq_len, length = size
    used = loader(length, seq_len, batch_size, seed)
    in_any_order = {k: used.batch(k)[0] for k in numbers}
    for k in numbers:
        assert torch.equal(in_any_order[k], loader(length, seq_len, batch_size, seed).batch(k)[0])


@given(sizes, st.integers(1, 5), st.integers(0, 40))
def test_the_size_of_a_batch_does_not_change_the_sequence_of_windows(size, batch_size, k):
    seq_len, length = size
    one_by_one = torch.cat([loader(length, seq_len, 1).batch(k * batch_size + row)[0] for row in range(batch_size)])
    assert torch.equal(loader(length, seq_len, batch_size).batch(k)[0], one_by_one)


@given(sizes, st.integers(1, 4), st.integers(1, 3), st.integers(0, 40))
def test_the_rows_of_all_ranks_make_up_the_global_batch(size, rows, world_size, k):
    seq_len, length = size
    whole, _ = loader(length, seq_len, rows * world_size).batch(k)
    ranks = [loader(length, seq_len, rows * world_size, rank=Rank(index, world_size)) for index in range(world_size)]
    assert torch.equal(torch.stack([rank.batch(k)[0] for rank in ranks], dim=1).flatten(0, 1), whole)


@given(sizes)
def test_targets_are_the_tokens_after(size):
    tokens, targets = loader(size[1], size[0], 3).batch(0)
    assert torch.equal(targets, tokens + 1)
    assert tokens.shape == (3, size[0])
    assert tokens.dtype == targets.dtype == torch.int64


def test_seed_corpus_and_epoch_each_change_the_order():
    order = WindowOrder(10_000, 10, 0, "print")
    first = order.starts(0, order.windows)
    others = [
        WindowOrder(10_000, 10, 1, "print").starts(0, order.windows),
        WindowOrder(10_000, 10, 0, "other").starts(0, order.windows),
        order.starts(order.windows, order.windows),
    ]
    assert not any(torch.equal(first, other) for other in others)
    assert len({int(order.starts(e * order.windows, order.windows).min()) for e in range(20)}) > 5


def test_the_order_is_the_one_that_published_runs_had():
    """Numbers to keep: another order makes old runs impossible to repeat."""
    assert WindowOrder(100, 8, 7, "print").starts(0, 12).tolist() == [41, 33, 25, 49, 65, 73, 9, 17, 1, 57, 81, 66]


def test_no_shared_random_state_is_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    WindowOrder(999, 3, 5, "untouched").starts(0, 500)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@given(sizes, st.integers(1, 40), st.integers(1, 7))
def test_held_out_windows_do_not_overlap_and_all_come_once(size, at_most, batch_size):
    seq_len, length = size
    starts = evenly_spaced_starts(length, seq_len, at_most)
    assert len(starts) == min(at_most, (length - 1) // seq_len)
    assert starts[0] == 0
    assert bool((starts.diff() >= seq_len).all())
    assert starts[-1] + seq_len < length
    held_out = HeldOutLoader(torch.arange(length), starts, seq_len, batch_size)
    batches = list(held_out)
    assert len(batches) == len(held_out)
    assert torch.equal(torch.cat([tokens[:, 0] for tokens, _ in batches]), starts)


def test_held_out_windows_are_spread_over_the_whole_stream():
    gaps = evenly_spaced_starts(100_000, 10, 64).diff()
    assert int(gaps.max() - gaps.min()) <= 10
    assert evenly_spaced_starts(100_000, 10, 64)[-1] > 98_000


def test_the_rows_of_all_ranks_make_up_the_held_out_windows():
    starts = evenly_spaced_starts(1000, 10, 10)
    stream = torch.arange(1000)
    ranks = [list(HeldOutLoader(stream, starts, 10, 4, Rank(index, 2))) for index in range(2)]
    assert [len(tokens) for tokens, _ in ranks[0]] == [2, 2, 1]
    assert sorted(int(row) for rank in ranks for tokens, _ in rank for row in tokens[:, 0]) == starts.tolist()


def test_rows_that_ranks_cannot_share_evenly_are_refused():
    with pytest.raises(InputError, match=r"--data\.batch_size is 3, which 2 processes"):
        loader(100, 10, 3, rank=Rank(0, 2))
    with pytest.raises(InputError, match=r"--data\.eval_windows\) is 5, which 2 processes"):
        HeldOutLoader(torch.arange(100), evenly_spaced_starts(100, 10, 5), 10, 4, Rank(0, 2))


def test_a_window_is_cut_from_bytes_beyond_127():
    tokens, targets = cut(torch.tensor([200, 255, 0], dtype=torch.uint8), torch.tensor([0]), 2)
    assert (tokens.tolist(), targets.tolist()) == ([[200, 255]], [[255, 0]])
