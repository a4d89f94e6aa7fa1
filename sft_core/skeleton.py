"""What a template prints around the messages, learnt from one row and checked on every other.

A skeleton is a conversation's text with holes where contents stood. A row fits it if filling the
holes gives the row's plain render to the letter, and if each generation prompt ends where the
skeleton says. Then the regions are known without tracing the row; else it is traced.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sft_core.provenance import Source, source
from sft_core.regions import ASSISTANT
from sft_core.tagged import SAME, Tagged, plain
from sft_core.types import Region, Span

_FIELDS: Final = ("content", "instruction", "input")
_PER_KEY: Final = 4
_KEYS: Final = 256

Prompt = Callable[[int], str | None]


class Segment(NamedTuple):
    """A literal, or the hole for ``field`` of message ``hole``; and the span that it is in."""

    literal: str
    hole: int | None
    field: str
    region: Region
    owner: int | None


class Skeleton(NamedTuple):
    """``answers[i]`` is the segment with which the answer of message i begins."""

    segments: tuple[Segment, ...]
    answers: tuple[tuple[int, int], ...]

    def fit(
        self, text: str, messages: Sequence[Mapping[str, Any]], prompt: Prompt
    ) -> tuple[Span, ...] | None:
        """The spans of ``text`` if it is this skeleton filled with ``messages``, else None."""
        pieces = [
            segment.literal if segment.hole is None else messages[segment.hole][segment.field]
            for segment in self.segments
        ]
        if "".join(pieces) != text:
            return None
        starts, at = [], 0
        for piece in pieces:
            starts.append(at)
            at += len(piece)
        starts.append(at)
        for message, segment in self.answers:
            if prompt(message) != text[: starts[segment]]:
                return None
        return self._spans(starts)

    def _spans(self, starts: Sequence[int]) -> tuple[Span, ...]:
        made: list[Span] = []
        for number, segment in enumerate(self.segments):
            start, end = starts[number], starts[number + 1]
            if start == end:
                continue
            if made and made[-1][2:] == (segment.region, segment.owner):
                made[-1] = made[-1]._replace(end=end)
            else:
                made.append(Span(start, end, segment.region, segment.owner))
        return tuple(made)


def learn(
    tagged: Tagged,
    spans: Sequence[Span],
    messages: Sequence[Mapping[str, Any]],
    prompt_ends: Mapping[int, int],
) -> Skeleton | None:
    """The skeleton of a traced row; None where a content is not printed as it is, or an answer
    does not begin where its prompt ends."""
    text = plain(tagged)
    edges = {span.start for span in spans}
    roles = [message["role"] for message in messages]
    if any(role == ASSISTANT and prompt_ends.get(i) not in edges for i, role in enumerate(roles)):
        return None
    segments: list[Segment] = []
    at: dict[int, int] = {}
    for span in spans:
        for match in SAME.finditer(tagged._tags, span.start, span.end):
            at.setdefault(match.start(), len(segments))
            segment = _segment(text[slice(*match.span())], source(match[1]), span, messages)
            if segment is None:
                return None
            segments.append(segment)
    return Skeleton(tuple(segments), tuple((i, at[end]) for i, end in prompt_ends.items()))


def _segment(
    piece: str, origin: Source, span: Span, messages: Sequence[Mapping[str, Any]]
) -> Segment | None:
    if not origin.content or origin.message is None:
        return Segment(piece, None, "", span.region, span.message)
    message = messages[origin.message]
    for field in _FIELDS:
        if message.get(field) == piece:
            return Segment("", origin.message, field, span.region, span.message)
    return None


class Memory:
    """The skeletons learnt lately, by what the rows that they came from have in common."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Skeleton, ...]] = OrderedDict()

    def recall(self, key: Hashable) -> tuple[Skeleton, ...]:
        return self._kept.get(key, ())

    def keep(self, key: Hashable, skeleton: Skeleton) -> None:
        with self._lock:
            known = self._kept.pop(key, ())
            self._kept[key] = known if skeleton in known else (skeleton, *known)[:_PER_KEY]
            while len(self._kept) > _KEYS:
                self._kept.popitem(last=False)
