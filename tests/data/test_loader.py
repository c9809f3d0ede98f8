import json
import multiprocessing
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_stream import MadeStream

from ngpt_lab.data.loader import HeldOutLoader, Rank, SwitchingLoader, WindowLoader
from ngpt_lab.data.windows import AcrossDocuments, MaskedDocuments, WithinDocuments
from ngpt_lab.errors import InputError

KINDS = [AcrossDocuments, MaskedDocuments, WithinDocuments]
# More workers than cores are fine here.
crowded = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def laid(kind, tokens=997, seq_len=10):
    lengths = 2 + np.random.default_rng(tokens).integers(0, 40, tokens)
    ends = lengths.cumsum()
    return kind(MadeStream([*lengths[ends < tokens - 1], tokens - ends[ends < tokens - 1][-1]]), seq_len)


def loader(kind=AcrossDocuments, batch_size=8, rank=Rank(), tokens=997, **settings):  # noqa: B008
    return WindowLoader(laid(kind, tokens), 3, "print", batch_size, rank, **settings)


def same(batch, other):
    return all(a is b is None or torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def interleaved(parts):
    """The global batch of which ranks read every so-manieth row."""
    return [None if part[0] is None else torch.stack(part, dim=1).flatten(0, 1) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@given(k=st.integers(0, 2000))
def test_the_rows_of_all_ranks_make_up_the_global_batch(kind, k):
    whole = loader(kind).batch(k)
    for world_size in (1, 2, 4, 8):
        parts = [loader(kind, rank=Rank(index, world_size)).batch(k) for index in range(world_size)]
        assert {len(part.tokens) for part in parts} == {8 // world_size}
        assert same(interleaved(parts), whole)


@crowded
@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_read_the_batches_that_one_process_reads(kind, num_workers):
    for world_size in (1, 2, 4, 8):
        rank = Rank(world_size - 1, world_size)
        ahead = loader(kind, rank=rank, num_workers=num_workers, next=5)
        for k, batch in enumerate(islice(ahead, 9), start=5):
            assert same(batch, loader(kind, rank=rank).batch(k))
            assert ahead.state_dict() == {"next": k + 1}


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_a_restart_at_any_step_goes_on(kind, start, read):
    whole, resumed = loader(kind, next=start), loader(kind)
    for _ in zip(range(read), whole, strict=False):
        pass
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert resumed.next == start + read
    for _ in range(3):
        assert same(next(iter(resumed)), next(iter(whole)))


@crowded
@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 3), (4, 1)])
def test_a_restart_goes_on_with_any_number_of_workers(before, after):
    """What workers have read ahead does not count: only what was handed out."""
    stopped, resumed = loader(MaskedDocuments, num_workers=before), loader(MaskedDocuments, num_workers=after)
    batches = iter(stopped)
    assert len(list(islice(batches, 7))) == 7
    batches.close()
    resumed.load_state_dict(stopped.state_dict())
    for k, batch in enumerate(islice(resumed, 6), start=7):
        assert same(batch, loader(MaskedDocuments).batch(k))


@given(st.integers(1, 5), st.integers(0, 40))
def test_the_size_of_a_batch_does_not_change_the_sequence_of_windows(batch_size, k):
    one_by_one = torch.cat([loader(batch_size=1).batch(k * batch_size + row).tokens for row in range(batch_size)])
    assert torch.equal(loader(batch_size=batch_size).batch(k).tokens, one_by_one)


@crowded
def test_the_workers_end_with_the_iterator_and_leave_the_random_numbers_alone():
    before = torch.get_rng_state()
    for end in (lambda batches: batches.close(), lambda batches: None):
        batches = iter(loader(num_workers=2))
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        end(batches)
        del batches
        assert multiprocessing.active_children() == []
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_can_be_named_and_read_again(kind):
    identity = json.loads(json.dumps(loader(kind, rank=Rank(1, 4)).identity(12)))
    assert (identity["batch"], identity["seed"], identity["windows"]) == (12, 3, kind.__name__)
    assert same(laid(kind).batch(np.array(identity["starts"])), loader(kind).batch(12))


def test_a_loader_without_end_says_it_is_long():
    assert len(loader()) > 10**8


@given(k=st.integers(0, 10_000), switch_every=st.integers(1, 500))
def test_a_batch_comes_from_the_text_of_its_phase_and_each_text_is_read_in_its_own_order(k, switch_every):
    first, second = loader(tokens=500), loader(MaskedDocuments, tokens=700)
    switching = SwitchingLoader(first, second, switch_every)
    is_second = k // switch_every % 2 == 1
    read_before = k // (2 * switch_every) * switch_every + k % switch_every
    assert same(switching.batch(k), (second if is_second else first).batch(read_before))
    identity = switching.identity(k)
    assert (identity["batch"], identity["text"]) == (k, "second" if is_second else "first")
    assert identity["of"] == (second if is_second else first).identity(read_before)


@crowded
@given(st.integers(0, 60), st.integers(1, 20))
def test_switching_goes_on_where_it_was_left(start, switch_every):
    whole, resumed = (SwitchingLoader(loader(tokens=500), loader(tokens=700), switch_every) for _ in range(2))
    for _ in zip(range(start), whole, strict=False):
        pass
    resumed.load_state_dict(whole.state_dict())
    for _ in range(3):
        assert same(next(iter(whole)), next(iter(resumed)))


def test_workers_switch_too():
    def switching(**settings):
        return SwitchingLoader(loader(tokens=500), loader(tokens=700), 2, **settings)

    for ahead, here in zip(islice(switching(num_workers=1), 6), switching(), strict=False):
        assert same(ahead, here)


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 99), st.integers(1, 9))
def test_held_out_windows_all_come_once_in_order(kind, at_most, batch_size):
    windows = laid(kind)
    starts = windows.held_out(at_most)
    held_out = HeldOutLoader(windows, starts, batch_size)
    batches = list(held_out)
    assert len(batches) == len(held_out)
    assert [len(batch.tokens) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert torch.equal(torch.cat([batch.tokens[:, 0] for batch in batches]), torch.from_numpy(starts))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_have_equally_many_held_out_windows_in_equally_many_batches(kind):
    windows = laid(kind)
    ranks = [list(HeldOutLoader(windows, windows.held_out(10), 4, Rank(index, 2))) for index in range(2)]
    assert [[len(batch.tokens) for batch in rank] for rank in ranks] == [[2, 2, 1]] * 2
    whole = list(HeldOutLoader(windows, windows.held_out(10), 4))
    assert all(same(interleaved(parts), batch) for parts, batch in zip(zip(*ranks, strict=True), whole, strict=True))


def test_rows_that_ranks_cannot_share_evenly_are_refused():
    with pytest.raises(InputError, match=r"--data\.batch_size is 3, which 2 processes"):
        loader(batch_size=3, rank=Rank(0, 2))
    with pytest.raises(InputError, match=r"--data\.eval_windows\) is 5, which 2 processes"):
        HeldOutLoader(laid(AcrossDocuments), laid(AcrossDocuments).held_out(5), 4, Rank(0, 2))
