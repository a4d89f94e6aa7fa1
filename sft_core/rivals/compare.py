"""How a rival's mask differs from what the lab trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sft_core.rivals import why
from sft_core.rivals.methods import RivalMask
from sft_core.rivals.sides import Range, Run, Sides, ends
from sft_core.types import Encoded, Rendered


class Kind(StrEnum):
    """What sort of difference it is."""

    FINDS_NOTHING = "finds-nothing"
    TRAINS_OTHER = "trains-other"
    MISSES_ANSWER = "misses-answer"
    MISSES_END = "misses-end"
    OTHER_IDS = "other-ids"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS: Final = {
    Kind.FINDS_NOTHING: "finds nothing",
    Kind.TRAINS_OTHER: "trains what is not answer",
    Kind.MISSES_ANSWER: "misses answer",
    Kind.MISSES_END: "misses the end of turn",
    Kind.OTHER_IDS: "other ids than generation sends",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a rival differs, and why, in a sentence. ``places`` are half-open ranges of
    characters of the rendered text; ``tokens`` are the lab's positions there, counted over kept
    and dropped tokens alike."""

    kind: Kind
    sentence: str
    places: tuple[Range, ...]
    tokens: tuple[int, ...]


def compare(encoded: Encoded, rendered: Rendered, mask: RivalMask) -> tuple[Difference, ...]:
    """Where a rival trains other characters than the lab, or other ids; () where it does the same.
    Equal causes are one difference, in order of appearance. The first token counts nowhere: it is
    never predicted. A length limit is passed over, since it would cut both alike."""
    sides = Sides(encoded, rendered, mask)
    found: dict[tuple[Kind, str], list[Range]] = {}
    for kind, sentence, place in _all(sides):
        found.setdefault((kind, sentence), []).append(place)
    return tuple(
        Difference(kind, sentence, _joined(places), _tokens(sides, places))
        for (kind, sentence), places in found.items()
    )


def _all(sides: Sides) -> Iterator[tuple[Kind, str, Range]]:
    extra, missed = list(sides.extra), list(sides.missed)
    nothing = sides.mask.problem or why.nothing(sides)
    if nothing:
        for run in sorted([*extra, *missed]) or [Run(0, 0, *sides.rendered.spans[0][2:], None)]:
            yield Kind.FINDS_NOTHING, nothing, run[:2]
    else:
        for run in extra:
            yield Kind.TRAINS_OTHER, why.extra(sides, run), run[:2]
        for run in missed:
            yield _kind(run), why.missed(sides, run), run[:2]
    for patch in sides.patches:
        yield Kind.OTHER_IDS, why.other_ids(sides, patch), patch[:2]


def _kind(run: Run) -> Kind:
    return Kind.MISSES_END if ends(run) else Kind.MISSES_ANSWER


def _joined(places: list[Range]) -> tuple[Range, ...]:
    joined: list[Range] = []
    for start, end in sorted(places):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _tokens(sides: Sides, places: list[Range]) -> tuple[int, ...]:
    return tuple(sorted({at for place in places for at in sides.tokens(*place)}))
