"""The shapes that messages come in: what templates variously expect of the same conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Plain = dict[str, Any]


def shapes(messages: Sequence[Plain]) -> Iterator[Sequence[Plain]]:
    """The same messages as templates variously expect them. The first is the standard form;
    the others are tried only where that one fails or leaves an answer out."""
    yield messages
    parts = any(isinstance(message["content"], list) for message in messages)
    if parts and all(_only_text(message["content"]) for message in messages):
        yield [message | {"content": joined(message["content"])} for message in messages]
    if any("tool_calls" in message for message in messages):
        silent = [_without_empty_content(message) for message in messages]
        yield silent
        yield [_with_written_arguments(message) for message in messages]
        yield [_with_written_arguments(message) for message in silent]
    if not parts:
        yield [message | {"content": typed(message["content"])} for message in messages]


def _only_text(content: Any) -> bool:
    return isinstance(content, str) or all(part["type"] == "text" for part in content)


def joined(content: Any) -> str:
    """A content as one text."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def typed(text: str) -> list[Plain]:
    """A text as a content of typed parts."""
    return [{"type": "text", "text": text}]


def _without_empty_content(message: Plain) -> Plain:
    calling = "tool_calls" in message and not message["content"]
    return message | {"content": None} if calling else message


def _with_written_arguments(message: Plain) -> Plain:
    if "tool_calls" not in message:
        return message
    return message | {"tool_calls": [_written(call) for call in message["tool_calls"]]}


def _written(call: Plain) -> Plain:
    arguments = call["function"]["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return call | {"function": call["function"] | {"arguments": arguments}}
