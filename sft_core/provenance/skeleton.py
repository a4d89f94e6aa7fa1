"""What a template prints around the messages, learnt from one row and checked on every other.

A skeleton is a conversation's text with holes where contents stood. A row fits it if filling the
holes gives the row's plain render to the letter, and if each generation prompt ends where the
skeleton says. Then the regions are known without tracing the row; else it is traced.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, Final, NamedTuple

from sft_core.provenance.regions import Painted, merged
from sft_core.provenance.sources import ASSISTANT, Source, source
from sft_core.provenance.tagged import SAME, Tagged, plain
from sft_core.types import Region, Span

_FIELDS: Final = ("content", "instruction", "input")
_PER_KIND: Final = 4
_KINDS: Final = 256

_SPAN: Final = partial(tuple.__new__, Span)  # less than half the time of calling Span

Messages = Sequence[Mapping[str, Any]]
Prompt = Callable[[int], str | None]


_UNTOLD: Final = Painted((), ())


class Segment(NamedTuple):
    """A literal, or the hole for ``field`` of message ``hole``; and the span that it is in."""

    literal: str
    hole: int | None
    field: str
    region: Region
    owner: int | None


@dataclass(frozen=True)
class Skeleton:
    """``answers`` are (message, segment): with which segment the answer of a message begins."""

    segments: tuple[Segment, ...]
    answers: tuple[tuple[int, int], ...]

    def fit(
        self, text: str, messages: Messages, prompt: Prompt, told: bool = False
    ) -> Painted | None:
        """The regions of ``text`` if it is this skeleton filled with ``messages``, else None.
        ``prompt(i)`` is the generation prompt of message i. Where whoever asks has ``told``
        that the skeleton is enough for it, the regions are left out."""
        for at, message in enumerate(messages):
            if message["content"] and at not in self._holes:
                return None
        pieces = self._pieces(messages)
        if "".join(pieces) != text:
            return None
        edges = _edges(pieces)
        for at, segment in self.answers:
            said = prompt(at)
            if said is None or len(said) != edges[segment] or not text.startswith(said):
                return None
        if told:
            return _UNTOLD
        return self._filled(edges) if all(pieces) else self._painted(edges)

    def filled(self, messages: Messages) -> tuple[str, Painted]:
        """The text that ``messages`` make, and its regions: for a row that is known to fit."""
        pieces = self._pieces(messages)
        edges = _edges(pieces)
        return "".join(pieces), self._filled(edges) if all(pieces) else self._painted(edges)

    def _pieces(self, messages: Messages) -> list[str]:
        pieces = self._literals.copy()
        for at, hole, field in self._places:
            pieces[at] = messages[hole][field]
        return pieces

    @cached_property
    def _literals(self) -> list[str]:
        return [segment.literal for segment in self.segments]

    @cached_property
    def _places(self) -> list[tuple[int, int, str]]:
        """Which segments are holes, and for what."""
        numbered = enumerate(self.segments)
        return [(at, it.hole, it.field) for at, it in numbered if it.hole is not None]

    @cached_property
    def _holes(self) -> frozenset[int | None]:
        return frozenset(segment.hole for segment in self.segments)

    def _painted(self, edges: Sequence[int]) -> Painted:
        spans, literals = [], []
        for segment, start, end in zip(self.segments, edges, edges[1:], strict=False):
            if end > start:
                spans.append(Span(start, end, segment.region, segment.owner))
                if segment.hole is None and segment.region is Region.CONTENT:
                    literals.append((start, end))
        return Painted(merged(spans), tuple(literals))

    @cached_property
    def _in_segments(self) -> Painted:
        """What is painted where no hole is empty, counted in segments."""
        return self._painted(range(len(self.segments) + 1))

    @cached_property
    def _columns(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(zip(*self._in_segments.spans, strict=True)) or ((), (), (), ())

    def _filled(self, edges: Sequence[int]) -> Painted:
        starts, ends, regions, owners = self._columns
        at = edges.__getitem__
        spans = map(_SPAN, zip(map(at, starts), map(at, ends), regions, owners, strict=True))
        literals = [(edges[a], edges[b]) for a, b in self._in_segments.literals]
        return Painted(tuple(spans), tuple(literals))


def _edges(pieces: Sequence[str]) -> list[int]:
    return [0, *accumulate(map(len, pieces))]


def learn(
    tagged: Tagged, spans: Sequence[Span], messages: Messages, prompt_ends: Mapping[int, int]
) -> Skeleton | None:
    """The skeleton of a traced row; None where a content is not printed as it is, or an answer
    does not begin where its prompt ends."""
    text = plain(tagged)
    edges = {span.start for span in spans}
    answers = [i for i, message in enumerate(messages) if message["role"] == ASSISTANT]
    if any(prompt_ends.get(index) not in edges for index in answers):
        return None
    segments: list[Segment] = []
    starting: dict[int, int] = {}
    for span in spans:
        for match in SAME.finditer(tagged._tags, span.start, span.end):
            starting[match.start()] = len(segments)
            piece = text[match.start() : match.end()]
            segment = _segment(piece, source(match[1]), span, messages)
            if segment is None:
                return None
            segments.append(segment)
    return Skeleton(
        tuple(segments), tuple((index, starting[prompt_ends[index]]) for index in answers)
    )


def _segment(piece: str, origin: Source, span: Span, messages: Messages) -> Segment | None:
    if not origin.content or origin.message is None:
        return Segment(piece, None, "", span.region, span.message)
    for field in _FIELDS:
        if messages[origin.message].get(field) == piece:
            return Segment("", origin.message, field, span.region, span.message)
    return None


class Memory:
    """The skeletons learnt lately, by the kind of row that they came from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Skeleton, ...]] = OrderedDict()

    def recall(self, kind: Hashable) -> tuple[Skeleton, ...]:
        return self._kept.get(kind, ())

    def keep(self, kind: Hashable, skeleton: Skeleton) -> None:
        with self._lock:
            known = self._kept.pop(kind, ())
            self._kept[kind] = known if skeleton in known else (skeleton, *known)[:_PER_KIND]
            while len(self._kept) > _KINDS:
                self._kept.popitem(last=False)
