"""Which message a character comes from: the tags, and messages that carry them into a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sft_core.provenance.tagged import ENCLOSED, GIVEN, NOBODIES, NOBODY, Decimal, Tagged, Whole

ASSISTANT: Final = "assistant"
TOOL: Final = "tool"

_MARKUP_KEYS: Final = frozenset({"role", "name", "tool_call_id"})
"""What a message holds for the template's sake: it prints as markup of that turn."""


class Source(NamedTuple):
    """Where a character comes from: content of ``message``, or a literal printed while that
    message was current. ``message`` is None for what belongs to no turn."""

    message: int | None
    content: bool


def literal_tag(message: int | None) -> str:
    return NOBODY if message is None else chr(2 * message + 2)


def content_tag(message: int) -> str:
    return chr(2 * message + 3)


def source(tag: str) -> Source:
    code = ord(tag) & ~(ENCLOSED | GIVEN)
    return Source(None, False) if code < 2 else Source(code // 2 - 1, code % 2 == 1)


class Part(dict[str, Any]):
    """A mapping inside a message. ``_tag`` is what its punctuation prints as."""

    # The underscore keeps templates away from it: Jinja's sandbox refuses such names.
    __slots__ = ("_tag",)
    _tag: str


class Turn(Part):
    """A message as a template sees it; ``_index`` is its place in the conversation."""

    __slots__ = ("_index",)
    _index: int


def turn(index: int, message: Mapping[str, Any]) -> Turn:
    """A message whose every string and number knows where it comes from."""
    content, literal = content_tag(index), literal_tag(index)
    made = Turn()
    for key, value in message.items():
        made[key] = _marked(value, literal if key in _MARKUP_KEYS else content)
    made._tag, made._index = content, index
    return made


def given(value: Any) -> Any:
    """A tool, a document or a variable, whose every string and number knows that a row gave it."""
    return _marked(value, chr(GIVEN))


def _marked(value: Any, tag: str) -> Any:
    if isinstance(value, str):
        return Tagged(value, tag * len(value))
    if type(value) is int:
        return Whole.of(value, tag)
    if type(value) is float:
        return Decimal.of(value, tag)
    if isinstance(value, Mapping):
        part = Part({_marked(key, tag): _marked(item, tag) for key, item in value.items()})
        part._tag = tag
        return part
    if isinstance(value, list):
        return [_marked(item, tag) for item in value]
    return value


def turn_of(item: Any) -> str | None:
    """The literal tag of the message that a loop's item is, if it is one."""
    if isinstance(item, Turn):
        return literal_tag(item._index)
    if isinstance(item, tuple):
        return next((tag for tag in map(turn_of, item) if tag), None)
    if type(item) is dict and "role" in item:
        return _composed(item)
    return None


def _composed(message: Mapping[str, Any]) -> str | None:
    """For a message that the template has put together itself: whose words it holds."""
    for value in (message.get("content"), message["role"]):
        if isinstance(value, Tagged):
            owners = [source(tag).message for tag in set(value._tags)]
            known = [owner for owner in owners if owner is not None]
            if known:
                return literal_tag(max(known))
    return None


def owner_of(item: Any) -> str | None:
    """The literal tag of the message that an item is a piece of, if it is one."""
    for value in item if isinstance(item, tuple) else (item,):
        tags = ""
        if isinstance(value, Tagged):
            tags = value._tags
        elif isinstance(value, (Part, Whole, Decimal)):
            tags = value._tag
        if tags and tags[0] not in NOBODIES:
            return literal_tag(source(tags[0]).message)
    return None
