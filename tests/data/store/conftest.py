import hashlib

import pytest

from ngpt_lab.data.sources.source import Piece, TextSource


class Documents(TextSource):
    """Documents held in memory, each a list of the texts of its pieces."""

    name = "documents"

    def __init__(self, mark="a", **splits):
        self.mark, self.splits, self.reads = mark, splits, []

    def spec(self):
        return {"class": "Documents"}

    def pieces(self, split, skip=0):
        self.reads.append((split, skip))
        found = [
            Piece(text, number == len(document) - 1)
            for document in self.splits.get(split, [])
            for number, text in enumerate(document)
        ]
        yield from found[skip:]

    def state(self):
        return {"mark": self.mark}

    def changed(self, recorded):
        return None if recorded == self.state() else f"{recorded['mark']} is {self.mark} now"


@pytest.fixture(scope="session")
def documents():
    return Documents


@pytest.fixture
def sample():
    """A source whose training split fills many small batches, and whose lines stand in two splits."""
    lines = [f"line {n}: {hashlib.sha256(str(n).encode()).hexdigest()} and more of it\n".encode() for n in range(600)]
    train = [[b"".join(lines[n : n + 9]), b"".join(lines[n + 9 : n + 20])] for n in range(0, 400, 20)]
    return Documents(train=train, validation=[lines[390:410]], test=[[line] for line in lines[500:520]])


@pytest.fixture
def contents():
    """The files of a folder."""
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
