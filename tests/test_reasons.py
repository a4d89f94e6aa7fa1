"""The plan of a policy covers the text from end to end, and joins what is alike."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sft_core.config import MaskPolicy, TrainOn
from sft_core.reasons import stretches
from sft_core.sandbox import render
from sft_core.templates import PRESETS
from sft_core.types import NO_MESSAGE, Example, Message, Reason, Template

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
@pytest.mark.parametrize("train_on", TrainOn)
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
