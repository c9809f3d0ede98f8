import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.data.store import stream as module
from ngpt_lab.data.store.stream import ShardedStream


def written(folder, tokens, starts, shard_tokens, dtype="<u2", skip=0):
    shards = []
    for first in range(0, len(tokens), shard_tokens):
        shards.append(Path(folder, f"{first}.bin"))
        part = np.concatenate([np.full(skip, 7), tokens[first : first + shard_tokens]])
        shards[-1].write_bytes(part.astype(dtype).tobytes())
    begins = Path(folder, "starts")
    begins.write_bytes(np.array(starts, "<i8").tobytes())
    return ShardedStream(shards, shard_tokens, dtype, len(tokens), begins, len(starts), None, skip)


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
    monkeypatch.setattr(module, "MAPS", 3)
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
