"""Rows of the formats that people bring -> Examples, and a sentence for each row that is not one.

A format is recognised by the columns that rows have. ``columns`` maps the lab's names of fields
(instruction, output, messages, ...) to columns; ``recognise`` proposes it and a person may correct
it. Everything that can be wrong with a row is a RowError that names the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sft_core.types import ContentPart, DataError, Example, Message, RowError, ToolCall

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of row is laid out. ``needs`` and ``takes`` are the lab's field names, each
    with the columns that usually hold it, likeliest first."""

    name: str
    sentence: str
    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]


_COMMON: Final[Mapping[str, tuple[str, ...]]] = {
    "system": ("system", "system_prompt"),
    "category": ("category", "task", "topic"),
    "id": ("id", "prompt_id", "uuid"),
    "fact": ("fact",),
    "tools": ("tools", "functions"),
}

FORMATS: Final[Mapping[str, Format]] = {
    it.name: it
    for it in (
        Format(
            "messages",
            "A list of turns with role and content; weights, tool calls and typed parts are kept.",
            {"messages": ("messages", "conversation", "chat")},
            _COMMON,
        ),
        Format(
            "sharegpt",
            "A list of turns with from and value, as ShareGPT has them; function calls included.",
            {"conversations": ("conversations",)},
            _COMMON,
        ),
        Format(
            "alpaca",
            "An instruction, an input that it may be about, and the output.",
            {"instruction": ("instruction",), "output": ("output", "response")},
            {"input": ("input", "context"), **_COMMON},
        ),
        Format(
            "prompt-response",
            "A prompt and the response to it, each as text or as a list of turns.",
            {
                "prompt": ("prompt", "question", "query", "input"),
                "response": ("response", "completion", "answer", "output", "target"),
            },
            _COMMON,
        ),
    )
}

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


def recognise(available: Sequence[str], wanted: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The format of rows that have the columns ``available``, and field -> column. ``wanted``
    corrects: a field given there takes that column. Raises DataError where nothing fits."""
    known = {field for it in FORMATS.values() for field in (*it.needs, *it.takes)}
    for field, column in wanted.items():
        if field not in known:
            raise DataError(
                f"{field!r} is no field that a column can be mapped to. The fields are "
                f"{_listed(sorted(known))}."
            )
        if column not in available:
            raise DataError(
                f"There is no column {column!r} for {field}. The columns are "
                f"{_listed(available)}. Correct the mapping."
            )
    fits = [it for it in FORMATS.values() if _mapping(it, available, wanted) is not None]
    # A person who maps a field means the format that has it.
    meant = [it for it in fits if set(wanted) & set(it.needs)] or fits
    if not meant:
        raise DataError(
            f"No known format has the columns {_listed(available)}. Say which column holds the "
            "prompt and which the response, or the messages."
        )
    columns = _mapping(meant[0], available, wanted)
    return meant[0].name, columns or {}


def _mapping(
    format: Format, available: Sequence[str], wanted: Mapping[str, str]
) -> dict[str, str] | None:
    """field -> column, or None where a needed field has none. No column serves two fields."""
    spelled = {column.strip().lower(): column for column in reversed(available)}
    found: dict[str, str] = {
        field: column
        for field, column in wanted.items()
        if field in format.needs or field in format.takes
    }
    for field, usual in (*format.needs.items(), *format.takes.items()):
        if field in found:
            continue
        for name in usual:
            if name in spelled and spelled[name] not in found.values():
                found[field] = spelled[name]
                break
    return found if set(format.needs) <= set(found) else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "(none)"


# -- one row ----------------------------------------------------------------------------------


def to_example(row: Row, format: str, columns: Mapping[str, str], id: str) -> Example:
    """One row as an Example; ``id`` names it where it has no id of its own. Raises RowError with
    what is wrong with it."""
    if not isinstance(row, Mapping):
        raise RowError(id, f"{id} is {_kind(row)}, not an object with named fields.")
    fields = {field: row.get(column) for field, column in columns.items()}
    own = fields.get("id")
    name = _optional_text(own if not isinstance(own, str) else own.strip()) or id
    messages = _READERS[format](fields, name)
    system = fields.get("system")
    if isinstance(system, str) and system.strip() and messages[0].role != "system":
        messages = (Message("system", system), *messages)
    if not any(message.role == "assistant" for message in messages):
        raise RowError(name, f"{name} has no assistant turn, so there is nothing to learn from it.")
    if not all(_is_whole(message) for message in messages):
        raise RowError(
            name,
            f"{name} holds half of a character (a lone surrogate, as when an emoji was cut in "
            "two), which no tokenizer can read. Write the whole character, or leave it out.",
        )
    return Example(
        id=name,
        messages=messages,
        category=_optional_text(fields.get("category")),
        fact=_optional_text(fields.get("fact")),
        tools=_tools(fields.get("tools"), name),
    )


def _alpaca(fields: Row, name: str) -> tuple[Message, ...]:
    context = fields.get("input")
    if context is not None and not isinstance(context, str):
        raise RowError(name, f"The input of {name} is {_kind(context)}, not text.")
    instruction = _text(fields, "instruction", name)
    if not instruction.strip():
        raise RowError(name, f"The instruction of {name} is empty.")
    return (
        Message("user", instruction, context=context if context and context.strip() else None),
        Message("assistant", _text(fields, "output", name)),
    )


def _prompt_response(fields: Row, name: str) -> tuple[Message, ...]:
    prompt, response = fields.get("prompt"), fields.get("response")
    asked = (
        _turns(prompt, name)
        if isinstance(prompt, list)
        else (Message("user", _text(fields, "prompt", name)),)
    )
    answered = (
        _turns(response, name)
        if isinstance(response, list)
        else (Message("assistant", _text(fields, "response", name)),)
    )
    return (*asked, *answered)


def _messages(fields: Row, name: str) -> tuple[Message, ...]:
    return _turns(_decoded(fields.get("messages"), "messages", name), name)


def _sharegpt(fields: Row, name: str) -> tuple[Message, ...]:
    turns = _decoded(fields.get("conversations"), "conversations", name)
    return tuple(_either_turn(turn, name, at) for at, turn in enumerate(turns, 1))


_READERS: Final = {
    "alpaca": _alpaca,
    "prompt-response": _prompt_response,
    "messages": _messages,
    "sharegpt": _sharegpt,
}


def _decoded(value: Any, field: str, name: str) -> Sequence[Any]:
    """A list of turns, or the JSON text of one, as CSV files have it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise RowError(name, f"The {field} of {name} are text that is no JSON.") from None
    if not isinstance(value, (list, tuple)):
        raise RowError(name, f"The {field} of {name} are {_kind(value)}, not a list of turns.")
    if not value:
        raise RowError(name, f"The {field} of {name} are an empty list.")
    return value


# -- one turn ---------------------------------------------------------------------------------


def _turns(value: Sequence[Any], name: str) -> tuple[Message, ...]:
    if not value:
        raise RowError(name, f"{name} has an empty list of turns.")
    return tuple(_turn(turn, name, at) for at, turn in enumerate(value, 1))


def _turn(turn: Any, name: str, at: int) -> Message:
    if isinstance(turn, Mapping) and "role" not in turn and "from" in turn:
        return _sharegpt_turn(turn, name, at)
    if not isinstance(turn, Mapping):
        raise RowError(name, f"Turn {at} of {name} is {_kind(turn)}, not an object.")
    role = turn.get("role")
    if not isinstance(role, str) or not role.strip():
        raise RowError(name, f"Turn {at} of {name} has no role.")
    calls = _tool_calls(turn.get("tool_calls"), name, at)
    content = _content(turn.get("content"), name, at, may_be_missing=bool(calls))
    return Message(
        role=role.strip(),
        content=content,
        context=_optional_text(turn.get("context")),
        weight=_weight(turn.get("weight"), name, at),
        name=_optional_text(turn.get("name")),
        reasoning=_optional_text(turn.get("reasoning_content") or turn.get("reasoning")),
        tool_calls=calls,
        tool_call_id=_optional_text(turn.get("tool_call_id")),
    )


def _either_turn(turn: Any, name: str, at: int) -> Message:
    """A turn of ``conversations``, which many data sets write with role and content instead."""
    if isinstance(turn, Mapping) and "from" not in turn and "role" in turn:
        message = _turn(turn, name, at)
        return replace(message, role=SHAREGPT_ROLES.get(message.role.lower(), message.role))
    return _sharegpt_turn(turn, name, at)


def _sharegpt_turn(turn: Any, name: str, at: int) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(name, f"Turn {at} of {name} is {_kind(turn)}, not an object.")
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str):
        raise RowError(name, f"Turn {at} of {name} does not say who it is from.")
    if not isinstance(value, str):
        raise RowError(name, f"Turn {at} of {name} has {_kind(value)} as its value, not text.")
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
        raise RowError(name, f"The tool calls in turn {at} of {name} are {_kind(value)}.")
    calls: list[ToolCall] = []
    for call in value:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        called = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(called, str):
            raise RowError(name, f"A tool call in turn {at} of {name} has no name.")
        calls.append(ToolCall(called, _arguments(function), _optional_text(call.get("id"))))
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
    raise RowError(name, f"The content of turn {at} of {name} is {_kind(value)}, not text.")


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


# -- small values -----------------------------------------------------------------------------


def _text(fields: Row, field: str, name: str) -> str:
    value = fields.get(field)
    if isinstance(value, str):
        return value
    if value is None:
        raise RowError(name, f"{name} has no {field}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    raise RowError(name, f"The {field} of {name} is {_kind(value)}, not text.")


def _optional_text(value: Any) -> str | None:
    usable = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if usable and str(value) != "" else None


def _is_whole(message: Message) -> bool:
    """Whether all that a turn says is text that exists outside Python: UTF-8 has no surrogates."""
    calls = (part for call in message.tool_calls for part in (call.name, call.arguments))
    try:
        "".join((message.role, message.text, message.reasoning or "", *calls)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _tools(value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise RowError(name, f"The tools of {name} are text that is no JSON.") from None
    if not value:
        return ()
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(it, Mapping) for it in value):
        raise RowError(name, f"The tools of {name} are {_kind(value)}, not a list of objects.")
    return tuple(value)


def _kind(value: Any) -> str:
    """What a value is, in words of JSON."""
    match value:
        case None:
            return "missing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
