"""Rendered rows -> ids and labels alone, the shortest way that is certain.

Labels need less than reasons do: how many tokens stand before each place where training begins or
ends. So no offsets are asked of the backend, which makes them slowly. Each such place must be a
cut, an end of the text, or touch a marker of the tokenizer; then token counts follow from the ids:

- Added tokens are taken out of the text before anything else is split, so no token reaches over
  the edge of one.
- Where a segment has as many ids of a marker as its text has places that spell the marker, each
  place is one of these ids, in order: an id stands for one place, and no two places overlap.
- A special token that no message spells is forged by none.

A row of which any of that cannot be told is encoded as ``encode_many`` does it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import tokenizers

from sft_core.ahead import map_ahead
from sft_core.config import MaskPolicy
from sft_core.encode import Begun, chunks
from sft_core.layout import Laid
from sft_core.tokenizer import Tokenizer
from sft_core.tokenizer.pieces import written_fast
from sft_core.types import IGNORE_INDEX, Encoded, LabError, Rendered

_IGNORED: Final = array("i", [IGNORE_INDEX])


class Labels(NamedTuple):
    """What is left of an ``Encoded`` where nobody asks for its reasons; the names are its own."""

    ids: array[int]
    labels: array[int]
    trained: int
    beyond: tuple[int, int]

    def arrays(self) -> tuple[array[int], array[int]]:
        """The ids and the labels, four bytes a token."""
        return self.ids, self.labels


def label_many(
    rendereds: Iterable[Rendered | LabError],
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
) -> Iterator[Labels | Encoded | LabError]:
    """Ids and labels as ``encode_many`` gives them, for each row in order, and its errors. A row
    comes as ``Encoded`` where nothing of it is trained, so that it can be asked why, and where
    its labels take a look at each token."""
    quick = _Quick(tokenizer, policy, max_length)
    for chunk in map_ahead(quick.begin, chunks(rendereds), 1):
        found = quick.labels(chunk)
        failed = [
            plan.row
            for plan, labels in zip(chunk.plans, found, strict=True)
            if plan is not None and labels is None
        ]
        long = chunk.long.finished(tokenizer, policy, max_length)
        longer = Begun.of(tokenizer, failed).finished(tokenizer, policy, max_length)
        for plan, labels in zip(chunk.plans, found, strict=True):
            yield labels or next(long if plan is None else longer)


class _Border(NamedTuple):
    """Where training begins or ends: at the start of a segment; or at a ``place`` of the text in
    it where a ``marker`` begins, or ends if it is ``behind`` one."""

    segment: int
    marker: str = ""
    place: int = 0
    behind: bool = False


class _Plan(NamedTuple):
    """Of one row: its text, where it is cut (with both ends), and the borders of what is trained,
    each beginning followed by its end."""

    row: Laid
    text: str
    places: Sequence[int]
    borders: Sequence[_Border]


class _Chunk(NamedTuple):
    """For each row its plan, if it has one; what the backend made of the segments of those; and
    the other rows."""

    plans: list[_Plan | None]
    encodings: Sequence[tokenizers.Encoding] | None
    long: Begun


class _Quick:
    """The short way, for one tokenizer and one policy."""

    def __init__(self, tokenizer: Tokenizer, policy: MaskPolicy, max_length: int | None) -> None:
        self._tokenizer = tokenizer
        self._policy = policy
        self._most = max_length
        self._markers: Mapping[str, int] = tokenizer.markers
        self._lengths = sorted({len(marker) for marker in self._markers})
        self._control = {
            id: text for text, id in tokenizer.added.items() if id in tokenizer.control_ids
        }
        self._control_ids = frozenset(self._control)

    # -- before the tokenizer is asked ------------------------------------------------------------

    def begin(self, rows: Sequence[Laid | LabError]) -> _Chunk:
        """All that can be done ahead of whoever waits."""
        plans = [self.plan(row) if isinstance(row, Laid) else None for row in rows]
        rest = [row for row, plan in zip(rows, plans, strict=True) if plan is None]
        return _Chunk(plans, self.encodings(plans), Begun.of(self._tokenizer, rest))

    def plan(self, row: Laid) -> _Plan | None:
        """None where the short way cannot be gone."""
        text = row.rendered.text
        if not self._markers or not self._tokenizer.spelling.leaves(text):
            return None
        places = (0, *row.cut_places(), len(text))
        borders: list[_Border] = []
        segment = 0
        for span in row.trained(self._policy):
            for place in span:
                while segment < len(places) - 1 and places[segment + 1] <= place:
                    segment += 1
                if places[segment] == place:
                    borders.append(_Border(segment))
                    continue
                border = self._at_marker(text, segment, place)
                if border is None:
                    return None
                borders.append(border)
        return _Plan(row, text, places, borders) if borders else None

    def _at_marker(self, text: str, segment: int, place: int) -> _Border | None:
        for length in self._lengths:
            if (marker := text[place - length : place]) in self._markers and length <= place:
                return _Border(segment, marker, place, True)
        for length in self._lengths:
            if (marker := text[place : place + length]) in self._markers:
                return _Border(segment, marker, place)
        return None

    def encodings(self, plans: Sequence[_Plan | None]) -> Sequence[tokenizers.Encoding] | None:
        """The ids of all segments; None where the tokenizer cannot surely write them."""
        planned = [plan for plan in plans if plan is not None]
        if not self._tokenizer.spelling.surely_spells(plan.text for plan in planned):
            return None
        segments = [plan.text[a:b] for plan in planned for a, b in pairwise(plan.places)]
        return written_fast(self._tokenizer.backend, segments)

    # -- and after it -----------------------------------------------------------------------------

    def labels(self, chunk: _Chunk) -> list[Labels | None]:
        """Those of each row; None where they take the long way, or where there are none."""
        if chunk.encodings is None:
            return [None] * len(chunk.plans)
        found: list[Labels | None] = []
        encodings = iter(chunk.encodings)
        for plan in chunk.plans:
            if plan is None:
                found.append(None)
                continue
            segments = [next(encodings).ids for _ in range(len(plan.places) - 1)]
            found.append(None if self._may_be_forged(plan, segments) else self._row(plan, segments))
        return found

    def _may_be_forged(self, plan: _Plan, segments: Sequence[Sequence[int]]) -> bool:
        """Whether a message spells some special token that is among the ids."""
        present = {id for ids in segments for id in self._control_ids.intersection(ids)}
        find, written = plan.text.find, plan.row.written()
        for id in present:
            text = self._control[id]
            for start, end in written:
                if find(text, start, end) >= 0:
                    return True
        return False

    def _row(self, plan: _Plan, segments: Sequence[list[int]]) -> Labels | None:
        bases = [0, *accumulate(map(len, segments))]
        edges: list[int] = []
        for border in plan.borders:
            within = self._within(plan, border, segments) if border.marker else 0
            if within is None:
                return None
            edges.append(bases[border.segment] + within)
        together: list[int] = []
        for ids in segments:
            together += ids
        return self._cut_off(array("i", together), edges)

    def _within(self, plan: _Plan, border: _Border, segments: Sequence[list[int]]) -> int | None:
        """How many tokens of its segment stand before a border; None where that is uncertain."""
        number, marker, place, behind = border
        start, end = plan.places[number : number + 2]
        ids, id = segments[number], self._markers[marker]
        before = plan.text.count(marker, start, place)
        if ids.count(id) != before + plan.text.count(marker, place, end):
            return None
        at = -1
        for _ in range(before if behind else before + 1):
            at = ids.index(id, at + 1)
        return at + behind

    def _cut_off(self, ids: array[int], edges: list[int]) -> Labels | None:
        if edges[0] == 0:  # nothing stands before the first token, so nothing can predict it
            edges[0] = min(1, edges[1])
        every = sum(edges[1::2]) - sum(edges[::2])
        total = kept = len(ids)
        if self._most is not None and self._most < total:
            kept = self._most
            ids = ids[:kept]
            edges = [min(edge, kept) for edge in edges]
        labels = _IGNORED * kept
        trained = 0
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            labels[start:end] = ids[start:end]
            trained += end - start
        return Labels(ids, labels, trained, (total - kept, every - trained)) if trained else None
