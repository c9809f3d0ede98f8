"""Several sources read as one, in given shares."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ngpt_lab.data.sources.pieces import Piece
from ngpt_lab.data.sources.source import TextSource
from ngpt_lab.errors import InputError


class Mixture(TextSource):
    """Documents of several sources in turn, each source giving its share of the bytes.

    The next document is of the source that has given the least for its weight. A split ends when the source whose
    turn it is has no more, so that the shares hold to the end.

    Args:
        sources: The sources.
        weights: How much of the text each of them gives, in any unit.
    """

    def __init__(self, sources: list[TextSource], weights: list[float]) -> None:
        if len(sources) < 2:
            raise InputError(f"a mixture of {len(sources)} sources is none: name at least two")
        if len(weights) != len(sources):
            raise InputError(f"weights has {len(weights)} numbers for {len(sources)} sources: give each source one")
        if not all(0 < weight < float("inf") for weight in weights):
            raise InputError(f"weights is {weights}: each must be a number above 0")
        self.sources = sources
        self.weights = weights
        self.python = next((source.python for source in sources if source.python), None)

    @property
    def name(self) -> str:
        """The sources' names with their shares."""
        return self._told([source.name for source in self.sources])

    @property
    def folder_name(self) -> str:
        """See `TextSource`."""
        return self._told([source.folder_name for source in self.sources])

    def spec(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"class": "Mixture", "sources": [source.spec() for source in self.sources], "weights": self.weights}

    def pieces(self, split: str, skip: int = 0) -> Iterator[Piece]:
        """See `TextSource`."""
        return islice(self._pieces(split), skip, None)

    def state(self) -> dict[str, Any]:
        """See `TextSource`."""
        return {"sources": [source.state() for source in self.sources]}

    def changed(self, recorded: Mapping[str, Any]) -> str | None:
        """See `TextSource`."""
        states = recorded.get("sources")
        if not isinstance(states, list) or len(states) != len(self.sources):
            return "other sources are recorded for it"
        clauses = (source.changed(state) for source, state in zip(self.sources, states, strict=True))
        return next((clause for clause in clauses if clause), None)

    def renewed(self, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `TextSource`."""
        states = recorded.get("sources")
        if not isinstance(states, list) or len(states) != len(self.sources):
            return None
        renewed = [source.renewed(state) for source, state in zip(self.sources, states, strict=True)]
        return {"sources": [new or old for new, old in zip(renewed, states, strict=True)]} if any(renewed) else None

    def _told(self, names: list[str]) -> str:
        shares = [weight / sum(self.weights) for weight in self.weights]
        return " + ".join(f"{share:.3g} {name}" for name, share in zip(names, shares, strict=True))

    def _pieces(self, split: str) -> Iterator[Piece]:
        streams = [source.pieces(split) for source in self.sources]
        given = [0.0] * len(streams)
        while True:
            turn = min(range(len(streams)), key=lambda k: given[k] / self.weights[k])
            ended = False
            while not ended:
                if (piece := next(streams[turn], None)) is None:
                    return
                given[turn] += len(piece.text)
                ended = piece.ends
                yield piece
