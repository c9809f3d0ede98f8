import random
from itertools import permutations
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ngpt_lab.data.order import BLOCK, Permutation, WindowOrder, evenly_spaced, scatter

texts = st.text(max_size=5)
SEEDS = 3000


def undone(order: Permutation, numbers):
    """Where numbers stand in an order: its rounds backwards."""
    places = _once_undone(order, numbers.astype(np.uint64))
    while (outside := places >= order.size).any():
        places[outside] = _once_undone(order, places[outside])
    return places.astype(np.int64)


def _once_undone(order, numbers):
    row, column = numbers // order.columns, numbers % order.columns
    for even, odd in order.keys.reshape(-1, 2)[::-1]:
        column = (column + order.columns - scatter(row, odd, order.columns)) % order.columns
        row = (row + order.rows - scatter(column, even, order.rows)) % order.rows
    return row * order.columns + column


@given(st.integers(1, 10_000), texts)
def test_an_order_holds_every_number_once(size, text):
    assert np.array_equal(np.sort(Permutation(size, text)(np.arange(size))), np.arange(size))


@given(st.sampled_from([10**12, 10**12 + 1, 2**32, 2**62]) | st.integers(1, 2**63 - 1), texts, st.data())
def test_an_order_of_any_size_can_be_undone(size, text, data):
    at = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=50)), dtype=np.int64)
    order = Permutation(size, text)
    assert np.array_equal(undone(order, order(at)), at)
    assert np.array_equal(order(undone(order, at)), at)


def test_no_two_of_a_million_places_hold_the_same_number_of_ten_to_the_twelfth():
    numbers = Permutation(10**12, "print")(np.arange(10**6))
    assert len(np.unique(numbers)) == 10**6
    assert numbers.min() >= 0
    assert 0.99e12 < numbers.max() < 10**12


def even(counts):
    """Whether counts are as even as chance would have them."""
    return chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_is_as_likely_as_any_other(size):
    orders = [tuple(Permutation(size, f"{seed}")(np.arange(size)).tolist()) for seed in range(SEEDS)]
    assert even([orders.count(order) for order in permutations(range(size))])
    assert len(set(orders)) == factorial(size)


@pytest.mark.parametrize("size", [6, 9, 10, 1000])
def test_places_and_neighbours_hold_any_numbers_evenly_over_seeds(size):
    places = np.unique([0, 1, size // 2, size // 2 + 1, size - 2, size - 1])
    drawn = np.array([Permutation(size, f"{seed}")(places) for seed in range(SEEDS)])
    parts = min(size, 10)
    for column in (drawn * parts // size).T:
        assert even(np.bincount(column, minlength=parts))
    for left, right in ((0, 1), (-2, -1)):
        steps = (drawn[:, right] - drawn[:, left]) % size - 1  # never 0, so from 1 to size - 1
        assert even(np.bincount(steps * min(size - 1, 10) // (size - 1), minlength=min(size - 1, 10)))


@given(st.integers(1, 3 * BLOCK), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 3))
def test_an_epoch_visits_every_window_once_with_one_offset(windows, offsets, seed, epoch):
    numbers, drawn = WindowOrder(windows, offsets, seed, "print").choose(epoch * windows, windows)
    assert np.array_equal(np.sort(numbers), np.arange(windows))
    assert len(set(drawn.tolist())) == 1
    assert 0 <= drawn[0] < offsets


@given(st.integers(1, 2 * BLOCK), st.integers(0, 2**40), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_pieces_of_any_size_make_up_the_same_sequence(windows, seed, counts, data):
    first = data.draw(st.integers(0, 3 * windows))
    order, at, pieces = WindowOrder(windows, 7, seed, "print"), first, []
    for count in counts:
        pieces.append(np.stack(order.choose(at, count)))
        at += count
    assert np.array_equal(np.concatenate(pieces, axis=1), np.stack(order.choose(first, sum(counts))))


def test_seed_corpus_and_epoch_each_change_the_order_and_the_offset_varies():
    order = WindowOrder(1000, 10, 0, "print")
    first, _ = order.choose(0, 1000)
    others = [
        WindowOrder(1000, 10, 1, "print").choose(0, 1000),
        WindowOrder(1000, 10, 0, "other").choose(0, 1000),
        order.choose(1000, 1000),
    ]
    assert not any(np.array_equal(first, other) for other, _ in others)
    assert len({int(order.choose(1000 * epoch, 1)[1][0]) for epoch in range(20)}) > 5


def test_the_order_is_the_one_that_earlier_runs_had():
    """Numbers to keep: another order makes old runs impossible to repeat."""
    numbers, offsets = WindowOrder(11, 8, 7, "print").choose(0, 13)
    assert numbers.tolist() == [9, 8, 5, 0, 3, 1, 4, 6, 7, 10, 2, 3, 5]
    assert offsets.tolist() == [4] * 11 + [0] * 2
    assert Permutation(10**12, "print")(np.arange(3)).tolist() == [50341732725, 432529150985, 119936068090]


def test_no_shared_random_state_is_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    WindowOrder(333, 3, 5, "untouched").choose(0, 500)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@given(st.integers(0, 10**9), st.integers(1, 300))
def test_evenly_spaced_numbers_are_spread_over_all(available, at_most):
    numbers = evenly_spaced(available, at_most)
    assert len(numbers) == min(available, at_most)
    gaps = np.diff([*numbers, available])
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert numbers[:1].tolist() in ([0], [])


def test_evenly_spaced_windows_do_not_overlap_and_end_in_the_stream():
    starts = 10 * evenly_spaced(100, 64)
    assert len(starts) == 64
    assert np.diff(starts).min() >= 10
    assert starts[-1] + 10 < 1001
    assert 10 * evenly_spaced(100, 1000)[-1] + 10 == 1000
