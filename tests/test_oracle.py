"""The judge is not asleep: every kind of wrong mask is seen for what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import pytest

from sft_core import templates
from sft_core.types import Example, Region, Rendered, Span, Template, TemplateError
from tests.oracle import complaints, reference, shapes
from tests.sample_templates import CONVERSATIONS, SAMPLES, TOKENS, examples, typed, user
from tests.test_generation_tags import EVERYWHERE

ALL = (
    {name: preset.source for name, preset in templates.PRESETS.items()}
    | SAMPLES
    | {f"tags: {name}": source for name, source in EVERYWHERE.items()}
)
Place = tuple[Region, int | None]


def spoilt(rendered: Rendered) -> Iterator[tuple[str, Rendered]]:
    """The same text with one thing wrong in its regions, for each thing and each answer."""
    places: list[Place] = [
        (span.region, span.message) for span in rendered.spans for _ in range(span.start, span.end)
    ]
    for index, role in enumerate(rendered.roles):
        said = [at for at, it in enumerate(places) if it == (Region.CONTENT, index)]
        end = [at for at, it in enumerate(places) if it == (Region.END_OF_TURN, index)]
        if role != "assistant":
            if said and "assistant" in rendered.roles[index:]:
                heir = rendered.roles.index("assistant", index)
                yield "a question trained", _with(rendered, places, said, (Region.CONTENT, heir))
            continue
        if said and said[0] and places[said[0] - 1][0] is Region.HEADER:
            earlier = [said[0] - 1]
            yield "a header trained", _with(rendered, places, earlier, (Region.CONTENT, index))
        if said and rendered.text[said[0]].isalnum():
            yield "a late start", _with(rendered, places, said[:1], (Region.HEADER, index))
        if said and rendered.text[said[-1]].isalnum() and end:
            last = said[-1:]
            yield "an early end", _with(rendered, places, last, (Region.SEPARATOR, None))
        if end and rendered.text[end[0] : end[-1] + 1].strip():
            yield "no end", _with(rendered, places, end, (Region.SEPARATOR, index))
        behind = end[-1] + 1 if end else len(places)
        if behind < len(places) and places[behind][0] is Region.HEADER:
            yield "the next header", _with(rendered, places, [behind], (Region.END_OF_TURN, index))


def _with(rendered: Rendered, places: list[Place], wrong: list[int], instead: Place) -> Rendered:
    made = list(places)
    for at in wrong:
        made[at] = instead
    spans, at = [], 0
    for place, run in groupby(made):
        length = len(list(run))
        spans.append(Span(at, at + length, *place))
        at += length
    return replace(rendered, spans=tuple(spans))


def seen(source: str, example: Example) -> Iterator[tuple[str, bool]]:
    """Each kind of fault that can be made in a conversation, and whether it is complained of."""
    try:
        rendered = templates.render(Template("x", source), example, TOKENS)
    except TemplateError:
        return
    if reference(source, example, TOKENS) is None:
        return
    for fault, wrong in spoilt(rendered):
        yield fault, bool(complaints(source, example, wrong, TOKENS))


def test_what_is_spoilt_is_complained_of() -> None:
    wanted = ("single", "multi", "system", "tools", "thinking", "reasoning")
    rows = [example for example in examples() if example.id in wanted]
    found = Counter(it for source in ALL.values() for row in rows for it in seen(source, row))
    faults = {fault for fault, _ in found}
    assert faults == {
        "a question trained",
        "a header trained",
        "a late start",
        "an early end",
        "no end",
        "the next header",
    }
    for fault in faults:
        missed, caught = found[fault, False], found[fault, True]
        assert caught > 20
        assert missed <= 0.02 * caught, fault


@pytest.mark.parametrize("name", EVERYWHERE)
def test_templates_with_tags_are_right_in_every_conversation(name: str) -> None:
    for example in examples():
        if reference(EVERYWHERE[name], example, TOKENS) is not None:
            rendered = templates.render(Template("x", EVERYWHERE[name]), example, TOKENS)
            assert complaints(EVERYWHERE[name], example, rendered, TOKENS) == [], example.id


def test_another_text_is_complained_of() -> None:
    source = ALL["chatml"]
    example = Example("x", CONVERSATIONS["single"])
    rendered = templates.render(Template("x", source), example, TOKENS)
    [complaint] = complaints(source + "!", example, rendered, TOKENS)
    assert complaint.cause == "text differs"


def test_the_forms_of_a_conversation() -> None:
    plain = Example("x", (user("Hi"),))
    assert [form[0]["content"] for form in shapes(plain)] == [
        "Hi",
        [{"type": "text", "text": "Hi"}],
    ]
    parts = list(shapes(Example("x", (typed("Hi", "user"),))))
    assert parts[-1][0]["content"] == "Hi"
    called = Example("x", CONVERSATIONS["tools"])
    assert {type(form[1]["content"]) for form in shapes(called)} == {str, list, type(None)}
