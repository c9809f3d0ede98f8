from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ngpt_lab.data.sources.pieces import Piece, between, divide, measure, recut, whole

TEXTS = st.text(alphabet="ab\né\u65e5\U0001f642", min_size=1, max_size=60).map(str.encode)
DOCUMENTS = st.lists(TEXTS, max_size=6)
CUTS = st.lists(st.integers(0, 240), max_size=8)


def cut_anywhere(document, cuts):
    bounds = [0, *sorted(cut for cut in cuts if cut <= len(document)), len(document)]
    return [document[first:last] for first, last in pairwise(bounds)]


def documents_of(pieces):
    return b"".join(text + b"\0" * ends for text, ends in pieces).split(b"\0")[:-1]


@given(DOCUMENTS, CUTS, st.integers(4, 20))
def test_pieces_depend_on_the_documents_and_not_on_how_they_were_read(documents, cuts, limit):
    read = [piece for document in documents for piece in whole(cut_anywhere(document, cuts))]
    pieces = list(recut(read, limit))
    assert pieces == list(recut([Piece(document, True) for document in documents], limit))
    assert documents_of(pieces) == documents
    for text, _ in pieces:
        assert 0 < len(text) <= limit
        text.decode()


@given(TEXTS, st.integers(4, 20))
def test_a_document_is_cut_after_the_last_newline_within_the_limit(document, limit):
    rest = document
    for text, ends in recut([Piece(document, True)], limit):
        if not ends and b"\n" in rest[:limit]:
            assert text == rest[: rest.rindex(b"\n", 0, limit) + 1]
        elif not ends:
            assert len(text) > limit - 4
        rest = rest[len(text) :]


@given(st.binary(max_size=60).map(lambda text: text.replace(b"\0", b"a")), CUTS, st.sampled_from([b"a", b"ab", b"aab"]))
def test_division_at_a_separator_finds_it_across_blocks(text, cuts, separator):
    divided = divide(cut_anywhere(text, cuts), separator)
    assert documents_of(divided) == [document for document in text.split(separator) if document]


@given(DOCUMENTS, CUTS, st.lists(st.integers(0, 400), min_size=1, max_size=4))
def test_ranges_add_up_to_the_whole_and_each_ends_its_documents(documents, cuts, bounds):
    read = [piece for document in documents for piece in whole(cut_anywhere(document, cuts))]
    stream = b"".join(document + b"\0" for document in documents)
    assert measure(read) == len(stream)
    for start, stop in pairwise([0, *sorted(bounds), len(stream) + 400]):
        part = list(between(read, start, stop))
        assert documents_of(part) == [document for document in stream[start:stop].split(b"\0") if document]
        assert not part or part[-1].ends


def test_a_separator_is_looked_for_without_holding_the_text():
    held = [len(text) for text, _ in divide((b"a" * 100 for _ in range(50)), b"<end>")]
    assert max(held) <= 100
    assert sum(held) == 5000
