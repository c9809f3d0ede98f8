import pickle
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.data.store import stream as module
from ngpt_lab.data.store.stream import ShardedStream, check_starts
from ngpt_lab.errors import InputError


def written(folder, tokens, starts, shard_tokens, dtype="<u2", skip=0, vocab_size=2**32):
    shards = []
    for first in range(0, len(tokens), shard_tokens):
        shards.append(Path(folder, f"{first}.bin"))
        part = np.concatenate([np.full(skip, 7), tokens[first : first + shard_tokens]])
        shards[-1].write_bytes(part.astype(dtype).tobytes())
    begins = Path(folder, "starts")
    begins.write_bytes(np.array(starts, "<i8").tobytes())
    return ShardedStream(shards, shard_tokens, dtype, vocab_size, len(tokens), begins, len(starts), None, skip)


@st.composite
def streams(draw):
    length = draw(st.integers(1, 60))
    starts = [0, *sorted(draw(st.sets(st.integers(1, max(length - 1, 1)))) if length > 1 else [])]
    window = draw(st.integers(1, length))
    return length, starts, draw(st.integers(1, 20)), window, draw(st.lists(st.integers(0, length - window), max_size=9))


@given(streams())
@settings(deadline=None, max_examples=200)
def test_windows_and_their_documents_are_those_of_one_array_wherever_the_shards_end(case):
    length, begins, shard_tokens, window, starts = case
    tokens = np.random.default_rng(length).integers(0, 60_000, length)
    of = np.array(begins)[np.searchsorted(begins, np.arange(length), "right") - 1]
    starts = np.array(starts, np.int64)
    with tempfile.TemporaryDirectory() as folder:
        stream = pickle.loads(pickle.dumps(written(folder, tokens, begins, shard_tokens)))
        expected = [tokens[start : start + window] for start in starts]
        assert np.array_equal(stream.windows(starts, window), np.array(expected).reshape(-1, window))
        assert stream.windows(starts, window).dtype == np.int64
        documents = [of[start : start + window] for start in starts]
        assert np.array_equal(stream.document_starts(starts, window), np.array(documents).reshape(-1, window))
        assert list(stream.documents) == begins


def test_ids_above_65536_and_a_stream_that_begins_inside_a_file(tmp_path):
    tokens = np.array([0, 65_536, 2**32 - 1])
    assert list(written(tmp_path, tokens, [0], 3, "<u4", skip=5).windows(np.array([0]), 3)[0]) == list(tokens)


def test_more_shards_than_files_that_a_process_may_hold_open(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "most_maps", lambda: 3)
    opened = []
    monkeypatch.setattr(module, "mapped", lambda path, *rest: opened.append(path) or original(path, *rest))
    stream = written(tmp_path, np.arange(40), [0], 2)
    assert list(stream.windows(np.array([0]), 40)[0]) == list(range(40))
    assert list(stream.windows(np.array([34]), 6)[0]) == list(range(34, 40))
    assert len(opened) == 20


original = module.mapped


@pytest.mark.parametrize("start", [-1, 3])
def test_a_window_beyond_the_stream_is_an_error_and_not_other_tokens(tmp_path, start):
    stream = written(tmp_path, np.arange(4), [0], 2)
    with pytest.raises(IndexError, match="beyond a stream of 4"):
        stream.windows(np.array([0, start]), 2)


def test_as_many_maps_are_kept_as_the_process_may_hold_files_open_fourfold(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (40, 40))
    opened = []
    monkeypatch.setattr(module, "mapped", lambda path, *rest: opened.append(path) or original(path, *rest))
    stream = written(tmp_path, np.arange(10), [0], 1)
    for _ in range(3):
        stream.windows(np.array([0]), 10)
    assert len(opened) == 10


@pytest.mark.parametrize(("skip", "shard", "at"), [(0, 3, 1), (5, 0, 12)])
def test_a_token_beyond_the_vocabulary_is_refused_with_its_file_and_place(tmp_path, skip, shard, at):
    tokens = np.arange(20) % 4
    tokens[7] = 4
    stream = written(tmp_path, tokens, [0], 20 if skip else 2, skip=skip, vocab_size=4)
    assert len(stream.windows(np.array([0, 12, 8]), 7)) == 3
    with pytest.raises(InputError, match=rf"{2 * shard}\.bin is damaged: token {at} is 4, and every one is below 4"):
        stream.windows(np.array([9, 3, 0]), 6)


@pytest.mark.parametrize("block", [2, 2**20])
@pytest.mark.parametrize("starts", [[], [1, 3], [0, 3, 3, 5], [0, 3, 5, 4, 8], [0, 2, 4, 9], [0, 1, 2, 3, -1]])
def test_starts_that_do_not_ascend_from_the_first_token_to_the_last_are_refused(tmp_path, monkeypatch, starts, block):
    monkeypatch.setattr(module, "BLOCK", block)
    for name, values in {"right": [0, 2, 3, 5, 8], "wrong": starts}.items():
        (tmp_path / name).write_bytes(np.array(values, "<i8").tobytes())
    check_starts(tmp_path / "right", 5, 9)
    with pytest.raises(InputError, match="wrong is damaged: it does not say where documents of 9 tokens begin"):
        check_starts(tmp_path / "wrong", len(starts), 9)
