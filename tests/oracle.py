"""An independent judge of masks: it changes one character of a message and sees what moves.

It renders with transformers' own ``apply_chat_template`` code and knows nothing of tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from sft_core import templates
from sft_core.types import Example, Message, Region, Rendered

Position = int


def reference(
    source: str, example: Example, tokens: Mapping[str, str], generation_prompt: bool = False
) -> str | None:
    """What transformers prints for an example; None where it raises."""
    given = templates.conversation(example)
    try:
        [text], _ = render_jinja_template(
            [list(given.messages)],
            tools=given.tools,
            chat_template=source,
            add_generation_prompt=generation_prompt,
            **tokens,
            **given.extra,
        )
    except (jinja2.TemplateError, TypeError):
        return None
    return str(text)


def complaints(
    source: str, example: Example, rendered: Rendered, tokens: Mapping[str, str]
) -> list[str]:
    """What is wrong with the regions of an example that rendered as in transformers."""
    text = rendered.text
    found = []
    region = _by_character(rendered)
    starts = dict(rendered.answer_starts())
    for index, message in enumerate(example.messages):
        for position in _moved(source, example, index, text, tokens):
            kind, owner = region[position]
            trained = kind is Region.CONTENT and owner is not None
            trained = trained and example.messages[owner].role == "assistant"
            shown = text[max(0, position - 12) : position + 12]
            if message.role != "assistant" and (trained or kind is Region.END_OF_TURN):
                found.append(f"message {index} would be trained in {owner}: {shown!r}")
            elif message.role == "assistant" and not trained:
                prefilled = kind is Region.HEADER and position < starts.get(index, 0)
                quoted = owner is not None and owner != index
                if not (prefilled or quoted):
                    found.append(f"answer {index} would not be trained: {shown!r} ({kind})")
    for index, start in starts.items():
        asked = replace(example, messages=example.messages[:index])
        prompt = reference(source, asked, tokens, generation_prompt=True)
        if prompt is not None and text.startswith(prompt) and start != len(prompt):
            found.append(f"answer {index} starts at {start}, its prompt ends at {len(prompt)}")
    return found


def _by_character(rendered: Rendered) -> list[tuple[Region, int | None]]:
    made: list[tuple[Region, int | None]] = []
    for start, end, region, message in rendered.spans:
        assert start == len(made), "the spans leave a gap"
        made += [(region, message)] * (end - start)
    assert len(made) == len(rendered.text), "the spans do not reach the end"
    return made


def _moved(
    source: str, example: Example, index: int, text: str, tokens: Mapping[str, str]
) -> set[Position]:
    """The characters of the text that change with some character of a message."""
    moved: set[Position] = set()
    for changed in _changed(example.messages[index]):
        messages = (*example.messages[:index], changed, *example.messages[index + 1 :])
        other = reference(source, replace(example, messages=messages), tokens)
        if other is not None and len(other) == len(text):
            moved |= {i for i, (a, b) in enumerate(zip(text, other, strict=True)) if a != b}
    return moved


def _changed(message: Message) -> Iterator[Message]:
    """The message with one of its characters replaced, for the outermost and middle ones."""
    assert isinstance(message.content, str)
    for text in _variants(message.content):
        yield replace(message, content=text)
    for text in _variants(message.reasoning or ""):
        yield replace(message, reasoning=text)
    for at, call in enumerate(message.tool_calls):
        for text in _variants(call.arguments):
            if _is_json(text):
                calls = list(message.tool_calls)
                calls[at] = replace(call, arguments=text)
                yield replace(message, tool_calls=tuple(calls))


def _variants(text: str) -> Iterator[str]:
    places = [
        at for at, character in enumerate(text) if character.isascii() and character.isalnum()
    ]
    chosen = {*places[:2], *places[-2:], *places[len(places) // 2 : len(places) // 2 + 1]}
    for at in sorted(chosen):
        new = "7" if text[at].isdigit() else "Q" if text[at].isupper() else "q"
        if new == text[at]:
            new = {"7": "4", "Q": "Z", "q": "z"}[new]
        yield text[:at] + new + text[at + 1 :]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
