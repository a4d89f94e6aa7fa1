"""What is found once for a shape is what would be found for each row of it."""

from __future__ import annotations

import random

import pytest

from sft_core import layout
from sft_core.config import MaskPolicy, TrainOn
from sft_core.layout import Laid
from sft_core.reasons import stretches
from sft_core.types import Region, Rendered, Span

ROLES = ("system", "user", "assistant", "tool", "assistant")
POLICIES = [MaskPolicy(train_on, end) for train_on in TrainOn for end in (True, False)]


def rows(count: int, least: int) -> list[Rendered]:
    """Rows of few shapes and many lengths; spans have at least ``least`` characters."""
    chance = random.Random(7)
    shapes = [
        [(chance.choice(list(Region)), chance.choice([None, 0, 1, 2, 3, 4])) for _ in range(size)]
        for size in (0, 1, 2, 5, 9, 14, 20)
    ]
    made = []
    for _ in range(count):
        at, spans = 0, []
        for region, message in chance.choice(shapes):
            end = at + chance.randint(least, 4)
            spans.append(Span(at, end, region, message))
            at = end
        weights = tuple(chance.choice([None, 0, 1]) for _ in ROLES)
        literals = ((at // 3, at // 2),) if at > 6 and chance.random() < 0.3 else ()
        made.append(Rendered("x" * at, tuple(spans), ROLES, weights, literals=literals))
    return made


@pytest.mark.parametrize("least", [1, 0])
def test_a_layout_gives_what_each_row_would(least: int) -> None:
    for row in rows(400, least):
        laid = Laid(row)
        for policy in POLICIES:
            assert laid.stretches(policy) == stretches(row, policy)
        starts = {start for _, start in row.answer_starts()}
        assert laid.cut_places() == tuple(sorted(starts - {0, len(row.text)}))
        told = {
            at for span in row.spans if span.region is Region.CONTENT for at in range(*span[:2])
        }
        told -= {at for literal in row.literals for at in range(*literal)}
        written = laid.written()
        assert [at for one in written for at in range(*one)] == sorted(told)
        assert all(start < end for start, end in written)


def test_ranges_that_touch_are_one() -> None:
    spans = (
        Span(0, 2, Region.CONTENT, 1),
        Span(2, 5, Region.CONTENT, 2),
        Span(5, 6, Region.END_OF_TURN, 2),
        Span(6, 9, Region.CONTENT, 3),
    )
    row = Rendered("x" * 9, spans, ROLES, (None,) * 5)
    assert Laid(row).written() == ((0, 5), (6, 9))


def test_shapes_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_SHAPES", 10)
    monkeypatch.setattr(layout, "_known", {})
    for length in range(1, 60):
        spans = tuple(Span(at, at + 1, Region.CONTENT, 0) for at in range(length))
        Laid(Rendered("x" * length, spans, ("user",), (None,)))
        assert len(layout._known) <= 10
