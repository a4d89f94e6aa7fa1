"""One turn of a conversation, in the layouts that data sets have, as a Message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sft_core.formats.values import kind, optional_text
from sft_core.types import ContentPart, Message, RowError, ToolCall

_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
"""Where turns keep what was thought before an answer, by the name that templates use for it."""
_THOUGHTS: Final = ("thinking", "reasoning")
"""Types of content parts that hold it."""

SHAREGPT_ROLES: Final[Mapping[str, str]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}


def turns(value: Sequence[Any], name: str) -> tuple[Message, ...]:
    """A list of turns as Messages. Raises RowError."""
    if not value:
        raise RowError(name, f"{name} has an empty list of turns.")
    return tuple(_turn(turn, name, at) for at, turn in enumerate(value, 1))


def _turn(turn: Any, name: str, at: int) -> Message:
    if isinstance(turn, Mapping) and "role" not in turn and "from" in turn:
        return _sharegpt_turn(turn, name, at)
    if not isinstance(turn, Mapping):
        raise RowError(name, f"Turn {at} of {name} is {kind(turn)}, not an object.")
    role = turn.get("role")
    if not isinstance(role, str) or not role.strip():
        raise RowError(name, f"Turn {at} of {name} has no role.")
    calls = _tool_calls(turn.get("tool_calls"), name, at)
    given = turn.get("content")
    content = _content(_without_thoughts(given), name, at, may_be_missing=bool(calls))
    return Message(
        role=role.strip(),
        content=content,
        context=optional_text(turn.get("context")),
        weight=_weight(turn.get("weight"), name, at),
        name=optional_text(turn.get("name")),
        reasoning=_reasoning(turn) or _thoughts(given),
        tool_calls=calls,
        tool_call_id=optional_text(turn.get("tool_call_id")),
    )


def either_turn(turn: Any, name: str, at: int) -> Message:
    """A turn of ``conversations``, which many data sets write with role and content instead."""
    if isinstance(turn, Mapping) and "from" not in turn and "role" in turn:
        message = _turn(turn, name, at)
        return replace(message, role=SHAREGPT_ROLES.get(message.role.lower(), message.role))
    return _sharegpt_turn(turn, name, at)


def _sharegpt_turn(turn: Any, name: str, at: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(name, f"Turn {at} of {name} is {kind(turn)}, not an object.")
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str):
        raise RowError(name, f"Turn {at} of {name} does not say who it is from.")
    if not isinstance(value, str):
        raise RowError(name, f"Turn {at} of {name} has {kind(value)} as its value, not text.")
    role = SHAREGPT_ROLES.get(speaker.strip().lower(), speaker)
    weight = _weight(turn.get("weight"), name, at)
    if speaker.strip().lower() == "function_call":
        return Message(role, weight=weight, tool_calls=_called(value, name, at))
    return Message(role, value, weight=weight)


def _called(value: str, name: str, at: int) -> tuple[ToolCall, ...]:
    """ShareGPT's function call: the JSON of one call or of a list of calls, as text."""
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        raise RowError(name, f"The function call in turn {at} of {name} is no JSON.") from None
    return _tool_calls(parsed if isinstance(parsed, list) else [parsed], name, at)


def _tool_calls(value: Any, name: str, at: int) -> tuple[ToolCall, ...]:
    if not value:
        return ()
    if not isinstance(value, (list, tuple)):
        raise RowError(name, f"The tool calls in turn {at} of {name} are {kind(value)}.")
    calls: list[ToolCall] = []
    for call in value:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        called = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(called, str):
            raise RowError(name, f"A tool call in turn {at} of {name} has no name.")
        calls.append(ToolCall(called, _arguments(function), optional_text(call.get("id"))))
    return tuple(calls)


def _arguments(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments if arguments is not None else {}, ensure_ascii=False, default=str)


def _content(
    value: Any, name: str, at: int, *, may_be_missing: bool
) -> str | tuple[ContentPart, ...]:
    if isinstance(value, str):
        return value
    if value is None:
        if may_be_missing:
            return ""
        raise RowError(name, f"Turn {at} of {name} has no content.")
    if isinstance(value, (list, tuple)):
        return tuple(_part(part, name, at) for part in value)
    raise RowError(name, f"The content of turn {at} of {name} is {kind(value)}, not text.")


def _reasoning(turn: Mapping[str, Any]) -> str | None:
    given = (turn.get(field) for field in _REASONING)
    return next((text for text in map(optional_text, given) if text), None)


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in _THOUGHTS


def _without_thoughts(content: Any) -> Any:
    if not isinstance(content, (list, tuple)):
        return content
    return [part for part in content if not _is_thought(part)]


def _thoughts(content: Any) -> str | None:
    """What typed parts hold of reasoning: as text, or as a list of texts under its own name."""
    if not isinstance(content, (list, tuple)):
        return None
    said = []
    for part in filter(_is_thought, content):
        inner = part.get(part["type"], part.get("text", ""))
        pieces = inner if isinstance(inner, (list, tuple)) else [inner]
        said += [str(it.get("text", "")) if isinstance(it, Mapping) else str(it) for it in pieces]
    return "".join(said) or None


def _part(part: Any, name: str, at: int) -> ContentPart:
    if isinstance(part, str):
        return ContentPart("text", part)
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        text = part.get("text")
        return ContentPart(part["type"], text if isinstance(text, str) else "")
    raise RowError(name, f"A part of turn {at} of {name} has no type.")


def _weight(value: Any, name: str, at: int) -> int | None:
    if value is None:
        return None
    if value in (0, 1):
        return int(value)
    raise RowError(name, f"The weight of turn {at} of {name} is {value!r}; it must be 0 or 1.")


def is_whole(message: Message) -> bool:
    """Whether all that a turn says is text that exists outside Python: UTF-8 has no surrogates."""
    calls = (part for call in message.tool_calls for part in (call.name, call.arguments))
    try:
        "".join((message.role, message.text, message.reasoning or "", *calls)).encode()
    except UnicodeEncodeError:
        return False
    return True
