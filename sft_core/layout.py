"""What rows of one shape have in common: where they are cut, and which spans have which reason.

A shape is the regions and messages of the spans, and the roles and weights: no text and no place.
Rows of a data set have few shapes. For each, the answers are found once, on a stand-in whose every
span is one character long, so that places in it are numbers of spans; and hold for all its rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from sft_core.config import MaskPolicy, TrainOn
from sft_core.reasons import Stretch, stretches
from sft_core.types import Region, Rendered, Span

Range = tuple[int, int]

_SHAPES: Final = 1024
_BY_SHAPE: Final = frozenset({TrainOn.ASSISTANT, TrainOn.LAST_ASSISTANT, TrainOn.ALL})
"""Policies that ask for nothing but what a shape is made of."""


class Layout:
    """Of one shape: ``starts``, where answers start, and ``written``, the ranges that messages
    wrote, both as places in the stand-in."""

    def __init__(self, stand_in: Rendered) -> None:
        self._stand_in = stand_in
        self._plans: dict[MaskPolicy, list[Stretch]] = {}
        self.starts = tuple(sorted({start for _, start in stand_in.answer_starts()}))
        contents = (span[:2] for span in stand_in.spans if span.region is Region.CONTENT)
        self.written = tuple(_joined(contents))

    def plan(self, policy: MaskPolicy) -> list[Stretch]:
        """The stretches of the stand-in."""
        found = self._plans.get(policy)
        if found is None:
            found = self._plans[policy] = stretches(self._stand_in, policy)
        return found


class Laid:
    """A rendered row with its layout."""

    __slots__ = ("_edges", "_layout", "rendered")

    def __init__(self, rendered: Rendered) -> None:
        self.rendered = rendered
        edges = [span[0] for span in rendered.spans]
        edges.append(len(rendered.text))
        self._edges: Sequence[int] = edges
        if len(set(edges)) < len(edges):  # an empty span: such a row is its own stand-in
            self._layout, self._edges = Layout(rendered), range(len(rendered.text) + 1)
            return
        shape = tuple([span[2:] for span in rendered.spans])
        key = (shape, rendered.roles, rendered.weights)
        self._layout = _known.get(key) or _learn(key, rendered)

    def cut_places(self) -> tuple[int, ...]:
        """Where the text is cut: at the start of each answer, if that is inside the text."""
        found = [self._edges[start] for start in self._layout.starts]
        return tuple([place for place in found if 0 < place < len(self.rendered.text)])

    def written(self) -> tuple[Range, ...]:
        """The ranges that a row wrote, in order: contents, but for what the template printed
        there itself, and what it gave as tools and documents."""
        edges = self._edges
        found = [(edges[start], edges[end]) for start, end in self._layout.written]
        written = _without(found, self.rendered.literals)
        if not self.rendered.given:
            return written
        return tuple(_joined(sorted((*written, *self.rendered.given))))

    def stretches(self, policy: MaskPolicy) -> list[Stretch]:
        """What ``reasons.stretches`` gives."""
        plan, ends = self.ends(policy)
        starts = [0, *ends]
        return [
            Stretch(start, end, reason, owner)
            for start, end, (_, _, reason, owner) in zip(starts, ends, plan, strict=False)
        ]

    def ends(self, policy: MaskPolicy) -> tuple[list[Stretch], list[int]]:
        """Stretches of which only reason and owner hold for this row, and where each one ends
        in it, which is where the next one starts."""
        if policy.train_on not in _BY_SHAPE:
            plan = stretches(self.rendered, policy)
            return plan, [stretch.end for stretch in plan]
        edges, plan = self._edges, self._layout.plan(policy)
        return plan, [edges[end] for _, end, _, _ in plan]


_known: dict[Hashable, Layout] = {}


def _learn(key: Hashable, rendered: Rendered) -> Layout:
    if len(_known) >= _SHAPES:
        _known.clear()
    spans = [Span(at, at + 1, *span[2:]) for at, span in enumerate(rendered.spans)]
    stand_in = Rendered("x" * len(spans), tuple(spans), rendered.roles, rendered.weights)
    layout = _known[key] = Layout(stand_in)
    return layout


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """The same characters, with ranges that touch made one."""
    joined: list[Range] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif start < end:
            joined.append((start, end))
    return joined


def _without(ranges: Sequence[Range], holes: Sequence[Range]) -> tuple[Range, ...]:
    """``ranges`` less the characters of ``holes``."""
    rest = list(ranges)
    for start, end in holes:
        parts = (
            (a, b) for r in rest for a, b in ((r[0], min(r[1], start)), (max(r[0], end), r[1]))
        )
        rest = [(a, b) for a, b in dict.fromkeys(parts) if a < b]
    return tuple(rest)
