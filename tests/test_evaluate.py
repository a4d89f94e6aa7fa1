"""Grading: what counts as the same answer, and how rows become a score."""

from __future__ import annotations

import pytest

from sft_core.config import GenerateConfig
from sft_core.evaluate import exact_match, grade, normalise
from sft_core.events import Graded, Scored, Side
from sft_core.generate import Voice
from sft_core.types import Example, Message
from tests.tensors import MEMORISED, memorised, pair

FACTS = frozenset({"bird", "greeting"})
STRANGE = pair("Which bird?", "A stork.", "5", category="short")
LONG = pair("long " * 40, "never", "6", category="long")


def graded(
    *examples: Example, seen: frozenset[str] | None = FACTS, temperature: float = 0.0
) -> tuple[list[Graded], Scored]:
    opened, template = memorised()
    voice = Voice.of(Side.TUNED, opened)
    config = GenerateConfig(max_new_tokens=40, temperature=temperature)
    *rows, scored = grade(voice, examples, seen, template, config)
    assert isinstance(scored, Scored)
    return [row for row in rows if isinstance(row, Graded)], scored


@pytest.mark.parametrize(
    ("text", "normal"),
    [("  The  Capital ", "the capital"), ("a\n\tb", "a b"), ("", ""), ("Straße", "straße")],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("paris.", " Paris. ", True),
        ("Paris", "Paris.", False),
        ("", "", True),
        ("", "Paris.", False),
        ("one  two", "One two", True),
    ],
)
def test_exact_match(answer: str, expected: str, same: bool) -> None:
    assert exact_match(answer, expected) is same


def test_every_row_is_graded_in_order() -> None:
    rows, _ = graded(*MEMORISED, STRANGE)
    assert [row.row for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row.exact for row in rows] == [True] * 4 + [False]
    assert rows[4].answer == "A heron."
    assert rows[4].expected == "A stork."
    assert rows[0].prompt == "Which bird?"


def test_the_score_is_split_by_category_and_by_what_training_held() -> None:
    _, scored = graded(*MEMORISED, STRANGE)
    score = scored.score
    assert scored.side is Side.TUNED
    assert (score.overall.exact, score.overall.count, score.overall.stopped) == (4, 5, 5)
    assert [(t.name, t.exact, t.count) for t in score.by_category] == [
        ("letters", 2, 2),
        ("short", 2, 3),
    ]
    assert score.seen is not None
    assert score.unseen is not None
    assert (score.seen.exact, score.seen.count) == (2, 2)
    assert (score.unseen.exact, score.unseen.count) == (2, 2)


def test_a_row_without_a_fact_is_neither_seen_nor_unseen() -> None:
    rows, scored = graded(STRANGE)
    assert rows[0].seen is None
    assert scored.score.seen is None
    assert scored.score.unseen is None


def test_without_facts_of_training_nothing_is_said_about_them() -> None:
    rows, scored = graded(*MEMORISED, seen=None)
    assert {row.seen for row in rows} == {None}
    assert scored.score.seen is None


def test_rows_without_categories_have_no_categories() -> None:
    _, scored = graded(Example("7", MEMORISED[0].messages))
    assert scored.score.by_category == ()


def test_some_rows_without_a_category_are_counted_apart() -> None:
    _, scored = graded(MEMORISED[0], Example("7", MEMORISED[0].messages))
    assert [tally.name for tally in scored.score.by_category] == ["short", "no category"]


def test_grading_is_greedy_whatever_is_asked() -> None:
    assert graded(*MEMORISED, temperature=5.0)[1].score.overall.exact == 4


def test_a_prompt_that_does_not_fit_counts_as_wrong() -> None:
    rows, scored = graded(MEMORISED[0], LONG, MEMORISED[3])
    assert [(row.exact, row.stopped) for row in rows] == [
        (True, True),
        (False, False),
        (True, True),
    ]
    assert scored.score.overall.count == 3


def test_an_answer_that_does_not_stop_is_counted() -> None:
    opened, template = memorised()
    config = GenerateConfig(max_new_tokens=3)
    *_, scored = grade(Voice.of(Side.BASE, opened), MEMORISED, FACTS, template, config)
    assert isinstance(scored, Scored)
    assert (scored.score.overall.stopped, scored.score.overall.exact) == (0, 0)


def test_a_stop_ends_it_without_a_score() -> None:
    opened, template = memorised()
    voice = Voice.of(Side.TUNED, opened)
    assert list(grade(voice, MEMORISED, None, template, GenerateConfig(), lambda: True)) == []


def test_the_last_answer_of_a_longer_conversation_is_asked_for() -> None:
    turns = (
        *MEMORISED[0].messages,
        Message("user", "Count."),
        Message("assistant", "one two three four five six"),
    )
    rows, _ = graded(Example("8", turns))
    assert rows[0].prompt == "Count."
    assert rows[0].expected == "one two three four five six"
