import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngpt_lab.data import store
from ngpt_lab.data.store import building, workers
from ngpt_lab.data.store.lock import locked
from ngpt_lab.data.tokenizers import BPE, Bytes
from ngpt_lab.errors import InputError


def whole(stream):
    return stream.windows(np.array([0]), len(stream))[0]


@st.composite
def corpora(draw):
    text = st.binary(max_size=6).map(lambda text: text.replace(b"\0", b"0"))
    documents = st.lists(st.lists(text, min_size=1, max_size=3), max_size=6)
    return draw(documents), draw(documents), draw(st.integers(1, 9)), draw(st.integers(1, 3))


@given(case=corpora(), stops=st.lists(st.integers(0, 12), max_size=3))
@settings(deadline=None, max_examples=60)
def test_a_store_holds_each_document_and_its_separator_wherever_it_was_broken_off(documents, case, stops):
    train, test, shard_tokens, batch = case
    source = documents(train=train, test=test)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "BATCH_PIECES", batch)
        for stop in stops:
            broken_off(source, Path(folder, "a"), shard_tokens, stop)
        corpus = store.open_folder(store.build(source, None, Path(folder, "a"), 1, shard_tokens))
        for split, expected in {"train": train, "validation": [], "test": test}.items():
            stream, joined = corpus.splits[split], [b"".join(document) + b"\0" for document in expected]
            assert whole(stream).astype(np.uint8).tobytes() == b"".join(joined)
            assert list(stream.documents) == list(np.cumsum([0, *map(len, joined)])[:-1])
            assert stream.bytes == len(stream) == sum(map(len, joined))
        store.verify(Path(folder, "a"))
        assert [path.name for path in Path(folder).iterdir()] == ["a"]


class BrokenOff(Exception):  # noqa: N818
    """What a source raises where a test wants it."""


def broken_off(source, folder, shard_tokens, stop):
    """Begin a store, or go on with it, and fail at the piece of that number."""

    class Broken(type(source)):
        def pieces(self, split, skip=0):
            for number, piece in enumerate(super().pieces(split, skip)):
                if number == stop:
                    raise BrokenOff
                yield piece

    broken = Broken(source.mark, **source.splits)
    with suppress(BrokenOff):
        store.build(broken, None, folder, 1, shard_tokens)


def test_one_process_and_two_write_the_same_bytes(sample, tmp_path, contents, monkeypatch):
    monkeypatch.setattr(workers, "BATCH_BYTES", 4000)
    one = store.build(sample, BPE(400), tmp_path / "one", 1, 1000)
    monkeypatch.setattr(workers, "ALONE_SECONDS", 0)
    started = []
    parallel = workers.in_parallel
    monkeypatch.setattr(workers, "in_parallel", lambda *args: started.append(args[2]) or parallel(*args))
    two = store.build(sample, BPE(400), tmp_path / "two", 2, 1000)
    assert set(started) == {2}
    assert contents(one) == contents(two)
    assert len([name for name in contents(one) if name.startswith("train-")]) > 5


KILLED_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from ngpt_lab.data import store
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.tokenizers import BPE

text, undisturbed, killed = map(Path, sys.argv[1:])
store.build(TextFiles(str(text)), BPE(300), undisturbed, 1, 2000)
replace, kills = os.replace, 0
for after in (False, True):
    for allowed in range(500):
        child = os.fork()
        if not child:
            left = [allowed % 7]
            def die(*paths):
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(*paths)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            os.replace = die
            store.build(TextFiles(str(text)), BPE(300), killed / str(after), 1, 2000)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
        kills += 1
print(kills)
"""


def test_a_store_killed_before_or_after_any_file_gets_its_name_ends_with_the_same_bytes(tmp_path, contents):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(900)))
    arguments = [text, tmp_path / "undisturbed", tmp_path / "killed"]
    ended = subprocess.run([sys.executable, "-c", KILLED_EVERYWHERE, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20
    for after in ("False", "True"):
        assert contents(tmp_path / "killed" / after) == contents(tmp_path / "undisturbed")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir() if "lock" not in path.name) == ["False", "True"]


PARALLEL = """
import sys
from pathlib import Path
from ngpt_lab.data import store
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.data.store import workers
from ngpt_lab.data.tokenizers import BPE

if __name__ == "__main__":
    workers.ALONE_SECONDS, workers.BATCH_BYTES = 0, 20_000
    workers.BATCH_PIECES = 50
    store.build(TextFiles(sys.argv[1]), BPE(300), Path(sys.argv[2]), 2, 20_000)
"""


def descendants(process):
    children = Path(f"/proc/{process}/task/{process}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return found + [each for child in found for each in descendants(child)]


def is_running(process):
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_no_other_behind_and_a_store_that_can_be_gone_on_with(tmp_path, number, contents):
    text = tmp_path / "text.jsonl"
    text.write_text("".join(f'{{"text": "{n} bottles {"of beer " * 90}"}}\n' for n in range(4000)))
    program = tmp_path / "program.py"
    program.write_text(PARALLEL)
    folder = tmp_path / "store"
    with subprocess.Popen([sys.executable, program, text, folder], stderr=subprocess.PIPE, start_new_session=True) as process:
        begun = tmp_path / "store.partial/store/train-00001.bin"
        while not begun.exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        started = descendants(process.pid)
        os.kill(process.pid, number)
        process.wait(60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143)
    assert len(started) >= 2
    deadline = time.monotonic() + 20
    while left := [each for each in started if is_running(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not folder.exists()
    from ngpt_lab.data.sources.text_files import TextFiles

    went_on = contents(store.build(TextFiles(str(text)), BPE(300), folder, 1, 20_000))
    assert went_on == contents(store.build(TextFiles(str(text)), BPE(300), tmp_path / "other", 1, 20_000))


def test_a_worker_that_dies_is_one_sentence_and_the_store_goes_on(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "BATCH_BYTES", 4000)
    monkeypatch.setattr(workers, "ALONE_SECONDS", 0)
    dies = Dying()
    with pytest.raises(InputError, match=r"a process that tokenizes died.*goes on where it stopped"):
        store.build(sample, dies, tmp_path / "a", 2, 1000)
    assert store.build(sample, dies, tmp_path / "a", 1, 1000) == tmp_path / "a"


class DyingEncoder(type(Bytes().encoder(None))):
    def encode(self, texts):
        if os.getpid() != self.parent:
            os._exit(1)
        return super().encode(texts)


class Dying(Bytes):
    def encoder(self, source):
        return self.restore(None)

    def restore(self, folder):
        encoder = DyingEncoder()
        encoder.parent = os.getpid()
        return encoder


def test_of_two_who_ask_for_a_store_one_makes_it_and_the_other_says_that_it_waits(sample, tmp_path, capsys):
    folder = tmp_path / "a"
    asked = [threading.Thread(target=store.build, args=(sample, None, folder)) for _ in range(2)]
    with locked(folder):
        for each in asked:
            each.start()
        told = ""
        while told.count("a is being made by another process: waiting for it") < 2:
            told += capsys.readouterr().err
            time.sleep(0.01)
        assert not folder.exists()
        assert not sample.reads
    for each in asked:
        each.join()
    assert sorted(sample.reads) == [("test", 0), ("train", 0), ("validation", 0)]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_sentence_and_what_is_stored_is_gone_on_with(sample, tmp_path, monkeypatch, contents):
    sync, left = os.fsync, [25]

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.partial/.* cannot be written: No space left on device"):
        store.build(sample, None, tmp_path / "a", 1, 1000)
    monkeypatch.setattr(os, "fsync", sync)
    reads = len(sample.reads)
    assert contents(store.build(sample, None, tmp_path / "a", 1, 1000)) == contents(
        store.build(sample, None, tmp_path / "b", 1, 1000)
    )
    assert sample.reads[reads][1] > 0


def test_a_folder_that_cannot_be_written_is_refused(sample, tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file"):
            store.build(sample, None, folder)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter").write_text("mine")
    with pytest.raises(InputError, match="used is there already and holds no tokens"):
        store.build(sample, None, tmp_path / "used")
    assert (tmp_path / "file").read_text() == (tmp_path / "used" / "letter").read_text() == "mine"


@pytest.mark.parametrize("what", ["tokenizer", "source", "shards", "shorter", "progress"])
def test_an_unfinished_store_of_something_else_is_told_and_left_as_it_is(sample, documents, tmp_path, what, monkeypatch):
    monkeypatch.setattr(workers, "BATCH_BYTES", 4000)
    broken_off(documents(**sample.splits), tmp_path / "a", 1000, 21)  # the held-out splits have 20 pieces each
    partial = tmp_path / "a.partial"
    before = {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()}
    assert any(path.name == "train-00000.bin" for path in before)
    tokenizer, size = (BPE(300) if what == "tokenizer" else None), (999 if what == "shards" else 1000)
    sample.mark = "b" if what == "source" else "a"
    if what in ("shorter", "progress"):
        path = partial / ("store/train-00000.bin" if what == "shorter" else building.PROGRESS)
        path.write_bytes(path.read_bytes()[:-9])
        before[path] = path.read_bytes()
    with pytest.raises(InputError, match=r"a\.partial"):
        store.build(sample, tokenizer, tmp_path / "a", 1, size)
    assert {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()} == before


def test_the_share_of_held_out_line_starts_that_stand_in_training_is_exact_below_the_limit(sample, tmp_path):
    corpus = store.open_folder(store.build(sample, None, tmp_path / "a"))
    # Ten of the twenty lines are training's too, each a piece of one line.
    assert corpus.shared_share == {"validation": 0.5, "test": 0.0}


def test_the_share_is_that_of_a_sample_which_no_order_changes(sample, documents, tmp_path, monkeypatch):
    monkeypatch.setattr("ngpt_lab.data.store.lines.AT_MOST", 4)
    monkeypatch.setattr("ngpt_lab.data.store.feed.AT_MOST", 1)
    turned = documents(train=sample.splits["train"], validation=[sample.splits["validation"][0][::-1]])
    shares = [
        store.open_folder(store.build(source, None, tmp_path / name)).shared_share["validation"]
        for name, source in {"a": sample, "b": turned}.items()
    ]
    assert shares[0] == shares[1]
    assert shares[0] in (0.0, 0.25, 0.5, 0.75, 1.0)


def test_a_script_without_a_guard_can_tokenize_in_parallel(tmp_path):
    (tmp_path / "text.txt").write_text("a line of text that is long enough\n" * 2000)
    script = tmp_path / "script.py"
    script.write_text(
        "from ngpt_lab.data import TextFiles\n"
        "from ngpt_lab.data.store import build, workers\n"
        "print('begun')\n"
        "workers.ALONE_SECONDS = 0\n"
        "workers.BATCH_BYTES = 10_000\n"
        "from pathlib import Path\n"
        f"build(TextFiles({str(tmp_path / 'text.txt')!r}), folder=Path({str(tmp_path / 'a')!r}), processes=2)\n"
    )
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (said.returncode, said.stdout) == (0, "begun\n"), said.stderr
