import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.data.sources.library import StandardLibrary
from ngpt_lab.data.sources.mixture import Mixture
from ngpt_lab.data.sources.pieces import Piece
from ngpt_lab.data.sources.source import TextSource
from ngpt_lab.data.sources.text_files import TextFiles
from ngpt_lab.errors import InputError


class Made(TextSource):
    def __init__(self, letter, sizes):
        self.letter, self.sizes = letter, sizes

    @property
    def name(self):
        return self.letter

    def spec(self):
        return {"class": "Made", "letter": self.letter}

    def pieces(self, split, skip=0):
        halves = [(size - size // 2, False, size // 2, True) for size in self.sizes]
        made = [Piece(self.letter.encode() * n, ends) for half in halves for n, ends in (half[:2], half[2:])]
        return iter(made[skip:])

    def state(self):
        return {"sizes": self.sizes}

    def changed(self, recorded):
        return None if recorded == self.state() else f"{self.letter} has changed"


SIZES = st.lists(st.integers(2, 100), min_size=1, max_size=40)


@given(st.lists(st.tuples(SIZES, st.floats(0.05, 5)), min_size=2, max_size=4))
def test_each_source_has_given_its_share_after_every_document(parts):
    mixture = Mixture([Made("abcd"[k], sizes) for k, (sizes, _) in enumerate(parts)], [weight for _, weight in parts])
    given_bytes = dict.fromkeys("abcd"[: len(parts)], 0)
    inside = None
    for text, ends in mixture.pieces("train"):
        letter = chr(text[0])
        assert inside in (None, letter)
        inside = None if ends else letter
        given_bytes[letter] += len(text)
        if ends:
            shares = [weight / sum(w for _, w in parts) for _, weight in parts]
            total = sum(given_bytes.values())
            for count, share in zip(given_bytes.values(), shares, strict=True):
                assert abs(count - share * total) <= 100 * len(parts)
    # It ends when one of them, and only that one, is read to its end.
    assert any(given_bytes["abcd"[k]] == sum(sizes) for k, (sizes, _) in enumerate(parts))


def test_shares_of_real_text_are_the_weights(tmp_path):
    (tmp_path / "a.txt").write_text("a document of some length|" * 100_000)
    mixture = Mixture([StandardLibrary(), TextFiles(str(tmp_path / "a.txt"), separator="|")], [3, 1])
    pieces = list(mixture.pieces("train"))
    mine = sum(len(text) for text, _ in pieces if text.startswith(b"a document of some length"))
    assert mine / sum(len(text) for text, _ in pieces) == pytest.approx(1 / 4, abs=0.02)
    assert list(mixture.pieces("train", 1000)) == pieces[1000:]
    assert mixture.name.startswith("0.75 standard library of Python")
    assert mixture.python == StandardLibrary().python


def test_what_a_mixture_is_and_whether_it_changed_follows_its_sources():
    a, b = Made("a", [3]), Made("b", [4])
    mixture = Mixture([a, b], [1, 2])
    assert mixture.spec() == {"class": "Mixture", "sources": [a.spec(), b.spec()], "weights": [1, 2]}
    assert mixture.changed(mixture.state()) is None
    assert Mixture([a, Made("b", [5])], [1, 2]).changed(mixture.state()) == "b has changed"
    assert mixture.changed({"sources": [{}]}) == "other sources are recorded for it"


@pytest.mark.parametrize(
    ("letters", "weights", "complaint"),
    [
        ("a", [1.0], "name at least two"),
        ("ab", [1.0], "weights has 1 numbers for 2 sources"),
        ("ab", [1.0, 0.0], "each must be a number above 0"),
        ("ab", [1.0, -1.0], "each must be a number above 0"),
        ("ab", [1.0, float("nan")], "each must be a number above 0"),
        ("ab", [1.0, float("inf")], "each must be a number above 0"),
    ],
)
def test_a_mixture_of_one_or_with_weights_that_are_none_is_refused(letters, weights, complaint):
    with pytest.raises(InputError, match=complaint):
        Mixture([Made(letter, [1]) for letter in letters], weights)
