"""The plan of a policy covers the text from end to end, and joins what is alike."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sft_core.config import MaskPolicy, TrainOn
from sft_core.reasons import stretches
from sft_core.sandbox import render
from sft_core.templates import PRESETS
from sft_core.types import NO_MESSAGE, Example, Message, Reason, Region, Rendered, Span, Template

EXAMPLE = Example(
    "x",
    (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Bye"),
        Message("assistant", "See you", weight=0),
        Message("user", "Still there?"),
        Message("assistant", "Yes"),
    ),
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("train_on", [TrainOn.ASSISTANT, TrainOn.LAST_ASSISTANT, TrainOn.ALL])
@pytest.mark.parametrize("end", [True, False])
def test_a_plan_covers_the_text_and_names_every_answer(
    name: str, train_on: TrainOn, end: bool
) -> None:
    rendered = render(Template(name, PRESETS[name].source), EXAMPLE, SPECIAL)
    plan = stretches(rendered, MaskPolicy(train_on, end))
    assert plan[0].start == 0
    assert plan[-1].end == len(rendered.text)
    for one, other in pairwise(plan):
        assert one.end == other.start
        assert (one.reason, one.owner) != (other.reason, other.owner)
    said = {it.owner: rendered.text[it.start : it.end] for it in plan if it.reason is Reason.ANSWER}
    earlier = {it.owner for it in plan if it.reason is Reason.EARLIER_TURN}
    excluded = {it.owner for it in plan if it.reason is Reason.EXCLUDED}
    if train_on is TrainOn.LAST_ASSISTANT:
        assert (said, earlier) == ({6: "Yes"}, {2})
    else:
        assert (said, earlier) == ({2: "Hello", 6: "Yes"}, set())
    assert excluded == {4}
    reasons = {it.reason for it in plan}
    assert (Reason.WHOLE_TEXT in reasons) is (train_on is TrainOn.ALL)
    assert Reason.PROMPT not in reasons or train_on is not TrainOn.ALL
    if name != "plain":
        assert (Reason.END_OF_TURN in reasons) is end
        assert (Reason.END_NOT_TRAINED in reasons) is not end
    assert all(it.owner in range(NO_MESSAGE, 7) for it in plan)


# -- generation tags ------------------------------------------------------------------------------

#            0    5    10   15   20
TEXT = "[u]Hi.[a]Yes.#[u]Go.\n"
SPANS = (
    Span(0, 3, Region.HEADER, 0),
    Span(3, 6, Region.CONTENT, 0),
    Span(6, 9, Region.HEADER, 1),
    Span(9, 13, Region.CONTENT, 1),
    Span(13, 14, Region.END_OF_TURN, 1),
    Span(14, 17, Region.HEADER, 2),
    Span(17, 20, Region.CONTENT, 2),
    Span(20, 21, Region.SEPARATOR, None),
)
BY_TAGS = MaskPolicy(TrainOn.GENERATION_TAGS)


def plan_of(
    *tagged: tuple[int, int], policy: MaskPolicy = BY_TAGS, weight: int | None = None
) -> list[tuple[str, Reason]]:
    roles = ("user", "assistant", "user")
    rendered = Rendered(TEXT, SPANS, roles, (None, weight, None), tagged=tagged)
    plan = stretches(rendered, policy)
    assert [plan[0].start, *(it.end for it in plan)] == [*(it.start for it in plan), len(TEXT)]
    return [(TEXT[it.start : it.end], it.reason) for it in plan]


def test_tags_around_an_answer_and_its_end_train_just_that() -> None:
    assert plan_of((9, 14)) == [
        ("[u]", Reason.MARKUP),
        ("Hi.", Reason.PROMPT),
        ("[a]", Reason.MARKUP),
        ("Yes.", Reason.ANSWER),
        ("#", Reason.END_OF_TURN),
        ("[u]", Reason.MARKUP),
        ("Go.", Reason.PROMPT),
        ("\n", Reason.MARKUP),
    ]


def test_what_an_author_encloses_is_trained_whoever_says_it() -> None:
    assert plan_of((5, 8), (10, 12), (18, 21)) == [
        ("[u]", Reason.MARKUP),
        ("Hi", Reason.PROMPT),
        (".", Reason.ANSWER),
        ("[a", Reason.ANSWER),
        ("]", Reason.MARKUP),
        ("Y", Reason.UNTAGGED),
        ("es", Reason.ANSWER),
        (".#", Reason.UNTAGGED),
        ("[u]", Reason.MARKUP),
        ("G", Reason.PROMPT),
        ("o.", Reason.ANSWER),
        ("\n", Reason.ANSWER),
    ]


def test_tags_bow_to_the_end_of_turn_and_to_weights() -> None:
    without_end = plan_of((9, 14), policy=MaskPolicy(TrainOn.GENERATION_TAGS, end_of_turn=False))
    assert without_end[3:5] == [("Yes.", Reason.ANSWER), ("#", Reason.END_NOT_TRAINED)]
    assert plan_of((6, 14), weight=0)[2] == ("[a]Yes.#", Reason.EXCLUDED)
    assert ("Yes.#", Reason.EXCLUDED) in plan_of(weight=0)


def test_without_tags_nothing_is_trained() -> None:
    rendered = Rendered(TEXT, SPANS, ("user", "assistant", "user"), (None,) * 3)
    assert rendered.tagged is None
    assert not any(it.reason.trained for it in stretches(rendered, BY_TAGS))
    assert plan_of((9, 14), policy=MaskPolicy()) == plan_of(policy=MaskPolicy())


def test_a_last_answer_that_prints_nothing_leaves_its_place_to_no_other() -> None:
    """ "Last answer" means the last assistant turn, whatever the template makes of it."""
    rendered = Rendered(
        "QA1Q",
        (
            Span(0, 1, Region.CONTENT, 0),
            Span(1, 3, Region.CONTENT, 1),
            Span(3, 4, Region.CONTENT, 2),
        ),
        ("user", "assistant", "user", "assistant"),
        (None,) * 4,
    )
    found = stretches(rendered, MaskPolicy(TrainOn.LAST_ASSISTANT))
    assert [it.reason for it in found] == [Reason.PROMPT, Reason.EARLIER_TURN, Reason.PROMPT]
