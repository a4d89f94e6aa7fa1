"""Why a search for role markers fails at a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sft_core.rivals.methods import Marker
from sft_core.rivals.sides import Range, Run, Sides
from sft_core.rivals.words import listed, parted, quoted, their_pieces, turn
from sft_core.types import Region


class _Place(NamedTuple):
    """A marker at a character of the text; the message whose own words it stands in, if any."""

    at: int
    marker: Marker
    said_by: int | None


@dataclass(frozen=True)
class _Search:
    """What was searched for, what was found, and what was there to be found."""

    sides: Sides

    @property
    def user(self) -> Marker:
        return self.sides.mask.markers[0]

    @property
    def answer(self) -> Marker:
        return self.sides.mask.markers[1]

    def places(self, marker: Marker) -> list[int]:
        """The characters at which the search found a marker."""
        return [self.sides.mask.offsets[index][0] for index in marker.found]

    @cached_property
    def _written(self) -> list[tuple[Range, int]]:
        rendered = self.sides.rendered
        return [
            ((span.start, span.end), span.message)
            for span in rendered.spans
            if span.region is Region.CONTENT and span.message is not None
        ]

    def _said_by(self, at: int, end: int) -> int | None:
        """The message whose content holds a stretch that the template did not print itself."""
        if any(a <= at < b for a, b in self.sides.rendered.literals):
            return None
        return next((own for (a, b), own in self._written if a <= at and end <= b), None)

    @cached_property
    def copied(self) -> list[_Place]:
        """What was found, although a message said it."""
        found = [
            _Place(at, marker, own)
            for marker in (self.user, self.answer)
            for at in self.places(marker)
            if (own := self._said_by(at, at + len(marker.text))) is not None
        ]
        return sorted(found, key=lambda place: place.at)

    @cached_property
    def lost(self) -> list[_Place]:
        """What the template printed, and was not found."""
        found = [
            _Place(at, marker, None)
            for marker in (self.user, self.answer)
            for at in self._printed(marker)
            if at not in self.places(marker)
        ]
        return sorted(found, key=lambda place: place.at)

    def _printed(self, marker: Marker) -> Iterator[int]:
        at = self.sides.text.find(marker.text)
        while at >= 0:
            end = at + len(marker.text)
            if self._said_by(at, end) is None:
                yield at
            at = self.sides.text.find(marker.text, end)

    def name(self, marker: Marker) -> str:
        return f"{'user' if marker is self.user else 'assistant'} marker {quoted(marker.text)}"

    def not_found(self, place: _Place) -> str:
        """Why a marker was not found where the template printed it; no full stop."""
        start, end = place.at, place.at + len(place.marker.text)
        offsets = self.sides.mask.offsets
        here = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        pieces = their_pieces(self.sides, here)
        alone = [self.sides.mask.spell(id) for id in place.marker.ids]
        name = self.name(place.marker)
        if pieces == alone and here[-1] == len(offsets) - 1:
            return f"The {name} stands at the very end, where the search does not look"
        text = self.sides.text
        beside = f"behind {quoted(text[start - 1])}" if start else "at the start"
        if pieces[:1] == alone[:1] and end < len(text):
            beside = f"before {quoted(text[end])}"
        one, other = parted(alone, pieces)
        return (
            f"The {name} is tokenised otherwise {beside} than alone, {listed(other)} in place of "
            f"{listed(one)}, so the search does not find it"
        )


def nothing(sides: Sides) -> str:
    """Why nothing at all is masked."""
    search = _Search(sides)
    reason = "No assistant marker stands behind the user marker of the same number"
    for marker in (search.answer, search.user):
        if not marker.found:
            reason = f"The {search.name(marker)} does not stand in this conversation"
    if search.lost:
        reason = search.not_found(search.lost[0])
    return f"{reason}: nothing is masked, and everything is trained."


def extra(sides: Sides, run: Run) -> str:
    search = _Search(sides)
    role = None if run.message is None else sides.rendered.roles[run.message]
    if (sentence := _astray(search, run.start)) is not None:
        return sentence
    if role == "user" and _slipped(search, run.start) > 0:
        return (
            "More assistant than user markers stand before this turn, and they are paired by "
            "number: its own is paired with an earlier answer's, and masks nothing."
        )
    starts = [at for _, at in sides.rendered.answer_starts() if at > run.start]
    if (sentence := _astray(search, min(starts, default=len(sides.text)))) is not None:
        return sentence
    users = search.places(search.user)
    if not users or run.start < users[0]:
        what = f"{role} turn" if role not in (None, "user") else "text"
        return f"Nothing is masked before the first user marker, so the {what} there is trained."
    if role == "user" and run.region is Region.HEADER and run.end in users:
        shown = quoted(sides.text[run.start : run.end])
        return f"The mask begins at the user marker itself, so the {shown} before it is trained."
    if role == "assistant":
        return (
            "An assistant marker is masked only behind a user turn: where an answer follows "
            "another turn, what opens it is trained."
        )
    if role not in ("user", None):
        return (
            f"The search knows user and assistant turns only, so a {role} turn counts as a part "
            "of the answer before it."
        )
    if not any(at > run.start for at in search.places(search.answer)):
        return "No assistant marker follows this turn, so nothing says where a mask would end."
    return "It stands outside every stretch from a user marker to an assistant marker."


def missed(sides: Sides, run: Run) -> str:
    search = _Search(sides)
    marked = (range(at, at + len(search.answer.text)) for at in search.places(search.answer))
    shown = quoted(sides.text[run.start : run.end])
    if any(run.start in place for place in marked):
        return (
            f"{shown} is a part of the assistant marker and masked with it, but no generation "
            "prompt brings it: the model has to print it, and does not learn to."
        )
    if (sentence := _astray(search, run.start)) is not None:
        return sentence
    if _slipped(search, run.start) < 0:
        return (
            "More user than assistant markers stand before this answer, and they are paired by "
            "number: a mask reaches across it to a later one."
        )
    return "It stands between a user marker and the assistant marker of the same number."


def _astray(search: _Search, end: int) -> str | None:
    """The first marker before a place that a message said, or that was not found, if any."""
    places = [place for place in (*search.copied, *search.lost) if place.at < end]
    if not places:
        return None
    first = min(places, key=lambda place: place.at)
    if first.said_by is None:
        return f"{search.not_found(first)}, and the pairs of markers are wrong from there on."
    return (
        f"{turn(search.sides, first.said_by).capitalize()} says the {search.name(first.marker)} "
        "itself: the search takes it for a turn, and the pairs of markers are wrong from there on."
    )


def _slipped(search: _Search, place: int) -> int:
    """How many more assistant than user markers were found before a place; the marker of the turn
    that the place itself belongs to is not counted."""
    users = [at for at in search.places(search.user) if at <= place]
    answers = [at for at in search.places(search.answer) if at <= place]
    if users and (not answers or users[-1] > answers[-1]):
        users.pop()
    return len(answers) - len(users)
